"""Parts of the stream: groups of people, segments, slices, odd rows."""

#!/bin/sh
# Installs the system packages that the real tests run against, where this machine allows it.
#
# With CI set a missing component is an error. Elsewhere it is named, and the tests that need it
# are skipped with their reason. Nothing is started: tests start what they need on free ports.
set -eu

# command and the Debian package that brings it
WANTED="
nginx nginx-light
haproxy haproxy
wrk wrk
h2load nghttp2-client
curl curl
strace strace
prometheus prometheus
promtool prometheus
alertmanager prometheus-alertmanager
prometheus-pushgateway prometheus-pushgateway
chromium chromium
openssl openssl
systemd-analyze systemd
"

present() {
    # Debian puts nginx where only root's PATH looks, and prefixes the names of small programs.
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/usr/bin/prometheus-$1" ]
}

missing() {
    # $1: "command" or "package"
    echo "$WANTED" | while read -r command package; do
        [ -n "$command" ] || continue
        present "$command" || eval "echo \$$1"
    done | sort -u | tr '\n' ' '
}

packages=$(missing package)
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    # apt starts the services it installs unless this file says no. We need the programs only.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # Chromium without a font draws empty boxes.
    case " $packages" in *" chromium "*) packages="$packages fonts-dejavu-core" ;; esac
    echo "installing system packages: $packages"
    export DEBIAN_FRONTEND=noninteractive
    quietly() {
        log=$(mktemp)
        if ! "$@" >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            rm -f "$log"
            return 1
        fi
        rm -f "$log"
    }
    quietly apt-get -o DPkg::Lock::Timeout=300 -q update || true
    # One package that cannot be had must not keep the others away.
    for package in $packages; do
        quietly apt-get -o DPkg::Lock::Timeout=300 -q install -y --no-install-recommends \
            "$package" || echo "could not install $package" >&2
    done
fi

absent=$(missing command)
[ -n "$absent" ] || exit 0
if [ -n "${CI:-}" ]; then
    echo "missing, and CI is set: $absent" >&2
    exit 1
fi
echo "missing: $absent(the tests that need them are skipped)" >&2

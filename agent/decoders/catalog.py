"""The closed list of decoders: one line each. The contract suite iterates it.

Do not reorder carelessly: while a protocol is being detected, earlier ones are tried first.
"""

from collections.abc import Callable, Mapping

from agent.decoders.chat import Chat
from agent.decoders.decoder import Decoder, DecoderSettings, SettingsError
from agent.decoders.embeddings import Embeddings
from agent.decoders.generate import Generate
from agent.decoders.grpc_open_inference import GrpcOpenInference
from agent.decoders.grpc_tf_serving import GrpcTfServing
from agent.decoders.grpc_torchserve import GrpcTorchServe
from agent.decoders.json_path import JsonPath
from agent.decoders.kserve_v1 import KServeV1
from agent.decoders.mlflow import MlflowInvocations
from agent.decoders.open_inference import OpenInference
from agent.decoders.sagemaker import SageMaker
from agent.decoders.tf_serving import TfServing
from agent.decoders.torchserve import TorchServe

CATALOG: Mapping[str, Callable[[DecoderSettings], Decoder]] = {
    OpenInference.name: OpenInference,
    # Over gRPC the path says which of them it is.
    GrpcOpenInference.name: GrpcOpenInference,
    GrpcTfServing.name: GrpcTfServing,
    GrpcTorchServe.name: GrpcTorchServe,
    Chat.name: Chat,  # before MLflow, which passes chats through under its own path
    Generate.name: Generate,
    Embeddings.name: Embeddings,
    TfServing.name: TfServing,  # before KServe V1: it claims only what shows its marks
    TorchServe.name: TorchServe,  # before KServe V1, whose bodies its handlers may take
    KServeV1.name: KServeV1,
    MlflowInvocations.name: MlflowInvocations,
    SageMaker.name: SageMaker,  # after MLflow, which refuses what is none of its forms
    JsonPath.name: JsonPath,
}
AUTO = "auto"


def decoders(protocol: str, settings: DecoderSettings) -> tuple[Decoder, ...]:
    """The decoders that `protocol` asks for: the one of that name, or all for `auto`.

    With `auto`, `json_path` takes part only when its paths are configured.

    Raises:
        SettingsError: an unknown protocol, or settings that the decoder cannot be made from.
    """
    if protocol == AUTO:
        return tuple(
            make(settings)
            for name, make in CATALOG.items()
            if name != JsonPath.name or settings.json_path is not None
        )
    if protocol not in CATALOG:
        known = ", ".join([AUTO, *CATALOG])
        raise SettingsError(f"protocol {protocol!r} is unknown; it is one of {known}")
    return (CATALOG[protocol](settings),)

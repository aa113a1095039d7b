"""DICOM networking for Trio: associations are nurseries, cancel scopes are C-CANCEL and A-ABORT.

Everything that users need is here, under `import dimse_trio as dimse`; `dimse_trio.archive` is the
embedded archive, `dimse_trio.matching` its matching engine, `dimse_trio.instruments` what there is
to watch, `dimse_trio.otel` OpenTelemetry, `dimse_trio.relay` a relay that listens in,
`dimse_trio.testing` for tests.

A name's module is imported when the name is first used: a script that sends C-ECHO needs no server,
and nothing needs pydicom before it touches a data set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import __version__ as __version__

if TYPE_CHECKING:
    from .acceptor import ServerStatistics as ServerStatistics
    from .association import Association as Association
    from .availability import AvailabilityListener as AvailabilityListener
    from .availability import AvailabilityNotice as AvailabilityNotice
    from .availability import AvailableInstance as AvailableInstance
    from .availability import InstanceAvailability as InstanceAvailability
    from .availability import availability_contexts as availability_contexts
    from .capture import PcapngWriter as PcapngWriter
    from .client import Destination as Destination
    from .client import associate_over as associate_over
    from .client import connect as connect
    from .client import open_association as open_association
    from .codes import Code as Code
    from .commitment import Commitment as Commitment
    from .commitment import CommitmentListener as CommitmentListener
    from .commitment import CommitmentResult as CommitmentResult
    from .commitment import commitment_contexts as commitment_contexts
    from .commitment_provider import StorageCommitmentProvider as StorageCommitmentProvider
    from .config import Limits as Limits
    from .config import Timeouts as Timeouts
    from .contexts import contexts_for as contexts_for
    from .contexts import default_contexts as default_contexts
    from .contexts import retrieve_contexts as retrieve_contexts
    from .contexts import split_instances as split_instances
    from .errors import AssociationAborted as AssociationAborted
    from .errors import AssociationClosed as AssociationClosed
    from .errors import AssociationError as AssociationError
    from .errors import AssociationRejected as AssociationRejected
    from .errors import AssociationTimeout as AssociationTimeout
    from .errors import CharacterSetError as CharacterSetError
    from .errors import ConnectionFailed as ConnectionFailed
    from .errors import ContextNotAccepted as ContextNotAccepted
    from .errors import DataSetError as DataSetError
    from .errors import DataSetTooLarge as DataSetTooLarge
    from .errors import DimseError as DimseError
    from .errors import HandlerError as HandlerError
    from .errors import InvalidFile as InvalidFile
    from .errors import LocalProtocolError as LocalProtocolError
    from .errors import ProtocolError as ProtocolError
    from .errors import QueryError as QueryError
    from .errors import Reject as Reject
    from .errors import RejectReason as RejectReason
    from .errors import RejectResult as RejectResult
    from .errors import RejectSource as RejectSource
    from .errors import RemoteProtocolError as RemoteProtocolError
    from .errors import StatusError as StatusError
    from .fetching import Retrieved as Retrieved
    from .files import UnreadableFile as UnreadableFile
    from .files import scan_files as scan_files
    from .handlers import EchoSCP as EchoSCP
    from .handlers import Handler as Handler
    from .handlers import SupportsAssociation as SupportsAssociation
    from .handlers import SupportsDestinations as SupportsDestinations
    from .handlers import SupportsEcho as SupportsEcho
    from .handlers import SupportsFind as SupportsFind
    from .handlers import SupportsGet as SupportsGet
    from .handlers import SupportsMove as SupportsMove
    from .handlers import SupportsNAction as SupportsNAction
    from .handlers import SupportsNCreate as SupportsNCreate
    from .handlers import SupportsNDelete as SupportsNDelete
    from .handlers import SupportsNEventReport as SupportsNEventReport
    from .handlers import SupportsNGet as SupportsNGet
    from .handlers import SupportsNSet as SupportsNSet
    from .handlers import SupportsStore as SupportsStore
    from .instruments import Instrument as Instrument
    from .inventory import Inventory as Inventory
    from .inventory import Stock as Stock
    from .inventory import take_inventory as take_inventory
    from .logs import LoggingInstrument as LoggingInstrument
    from .normalized import NormalizedResult as NormalizedResult
    from .normalized_requests import NActionRequest as NActionRequest
    from .normalized_requests import NCreateRequest as NCreateRequest
    from .normalized_requests import NDeleteRequest as NDeleteRequest
    from .normalized_requests import NEventReportRequest as NEventReportRequest
    from .normalized_requests import NGetRequest as NGetRequest
    from .normalized_requests import NSetRequest as NSetRequest
    from .normalized_requests import Reply as Reply
    from .offers import AnyHandler as AnyHandler
    from .offers import Handlers as Handlers
    from .operations import FindOperation as FindOperation
    from .part10 import Instance as Instance
    from .performed_step_scp import PerformedProcedureSteps as PerformedProcedureSteps
    from .performed_step_scp import PerformedStepFolder as PerformedStepFolder
    from .performed_step_scp import PerformedStepMemory as PerformedStepMemory
    from .performed_step_scp import PerformedStepStore as PerformedStepStore
    from .performed_steps import PerformedSeries as PerformedSeries
    from .performed_steps import PerformedStep as PerformedStep
    from .performed_steps import performed_step_attributes as performed_step_attributes
    from .performed_steps import performed_step_contexts as performed_step_contexts
    from .protocol.acceptance import TransferSyntaxPreference as TransferSyntaxPreference
    from .protocol.extended import ElementCoercion as ElementCoercion
    from .protocol.extended import QueryOptions as QueryOptions
    from .protocol.extended import StorageLevel as StorageLevel
    from .protocol.extended import StorageOptions as StorageOptions
    from .protocol.negotiation import AcceptedContext as AcceptedContext
    from .protocol.negotiation import Negotiated as Negotiated
    from .protocol.negotiation import PresentationContext as PresentationContext
    from .protocol.pdus import Implementation as Implementation
    from .protocol.pdus import RoleSelection as RoleSelection
    from .protocol.pdus import UserIdentity as UserIdentity
    from .protocol.pdus import UserIdentityType as UserIdentityType
    from .protocol.status import Status as Status
    from .protocol.status import StatusCategory as StatusCategory
    from .protocol.uids import Service as Service
    from .protocol.uids import new_uid as new_uid
    from .protocol.uids import sop_classes as sop_classes
    from .protocol.uids import uid_name as uid_name
    from .protocol.uids import uid_of as uid_of
    from .protocol.ups import StepEventType as StepEventType
    from .protocol.ups import StepState as StepState
    from .queries import Model as Model
    from .queries import Query as Query
    from .queries import query as query
    from .references import FailedReference as FailedReference
    from .references import FailureReason as FailureReason
    from .references import SOPReference as SOPReference
    from .relevant_patient import relevant_patient_query as relevant_patient_query
    from .remote import RemoteAE as RemoteAE
    from .remote_find import RemoteFind as RemoteFind
    from .requests import Admission as Admission
    from .requests import AssociationRequest as AssociationRequest
    from .requests import EchoRequest as EchoRequest
    from .requests import FindRequest as FindRequest
    from .requests import GetRequest as GetRequest
    from .requests import MoveOriginator as MoveOriginator
    from .requests import MoveRequest as MoveRequest
    from .requests import StoreRequest as StoreRequest
    from .retrieve_operations import GetOperation as GetOperation
    from .retrieve_operations import MoveOperation as MoveOperation
    from .retrieve_operations import RetrieveResult as RetrieveResult
    from .sending import StoreOutcome as StoreOutcome
    from .server import Server as Server
    from .server import open_server as open_server
    from .server import serve as serve
    from .server import serve_stream as serve_stream
    from .settings import ServerOptions as ServerOptions
    from .storing import Mismatch as Mismatch
    from .storing import MismatchPolicy as MismatchPolicy
    from .storing import OnMismatch as OnMismatch
    from .storing import Replacement as Replacement
    from .storing import StoreResult as StoreResult
    from .tls import TLS_PROFILES as TLS_PROFILES
    from .tls import TLSProfile as TLSProfile
    from .tls import tls_profile as tls_profile
    from .transcoding import TranscodingError as TranscodingError
    from .ups import UnifiedProcedureSteps as UnifiedProcedureSteps
    from .ups import procedure_step_contexts as procedure_step_contexts
    from .ups_claim import Claim as Claim
    from .ups_events import StepEvent as StepEvent
    from .ups_events import StepEvents as StepEvents
    from .ups_server import ProcedureSteps as ProcedureSteps
    from .ups_server import StepStorage as StepStorage
    from .worklist import WorklistFolder as WorklistFolder
    from .worklist import WorklistKeys as WorklistKeys
    from .worklist import worklist_matches as worklist_matches
    from .worklist import worklist_query as worklist_query
else:
    _NAMES = {
        "acceptor": "ServerStatistics",
        "association": "Association",
        "availability": (
            "AvailabilityListener AvailabilityNotice AvailableInstance InstanceAvailability"
            " availability_contexts"
        ),
        "capture": "PcapngWriter",
        "client": "Destination associate_over connect open_association",
        "codes": "Code",
        "commitment": "Commitment CommitmentListener CommitmentResult commitment_contexts",
        "commitment_provider": "StorageCommitmentProvider",
        "config": "Limits Timeouts",
        "contexts": "contexts_for default_contexts retrieve_contexts split_instances",
        "errors": (
            "AssociationAborted AssociationClosed AssociationError AssociationRejected "
            "AssociationTimeout CharacterSetError ConnectionFailed ContextNotAccepted "
            "DataSetError DataSetTooLarge "
            "DimseError HandlerError InvalidFile LocalProtocolError ProtocolError QueryError "
            "Reject RejectReason RejectResult RejectSource RemoteProtocolError StatusError"
        ),
        "fetching": "Retrieved",
        "files": "UnreadableFile scan_files",
        "handlers": (
            "EchoSCP Handler SupportsAssociation SupportsDestinations SupportsEcho SupportsFind "
            "SupportsGet SupportsMove SupportsNAction SupportsNCreate SupportsNDelete "
            "SupportsNEventReport SupportsNGet SupportsNSet SupportsStore"
        ),
        "instruments": "Instrument",
        "inventory": "Inventory Stock take_inventory",
        "logs": "LoggingInstrument",
        "normalized": "NormalizedResult",
        "normalized_requests": (
            "NActionRequest NCreateRequest NDeleteRequest NEventReportRequest NGetRequest "
            "NSetRequest Reply"
        ),
        "offers": "AnyHandler Handlers",
        "operations": "FindOperation",
        "retrieve_operations": "GetOperation MoveOperation RetrieveResult",
        "part10": "Instance",
        "performed_step_scp": (
            "PerformedProcedureSteps PerformedStepFolder PerformedStepMemory PerformedStepStore"
        ),
        "performed_steps": (
            "PerformedSeries PerformedStep performed_step_attributes performed_step_contexts"
        ),
        "protocol.acceptance": "TransferSyntaxPreference",
        "protocol.extended": "ElementCoercion QueryOptions StorageLevel StorageOptions",
        "protocol.negotiation": "AcceptedContext Negotiated PresentationContext",
        "protocol.pdus": "Implementation RoleSelection UserIdentity UserIdentityType",
        "protocol.status": "Status StatusCategory",
        "protocol.uids": "Service new_uid sop_classes uid_name uid_of",
        "protocol.ups": "StepEventType StepState",
        "queries": "Model Query query",
        "references": "FailedReference FailureReason SOPReference",
        "remote": "RemoteAE",
        "remote_find": "RemoteFind",
        "relevant_patient": "relevant_patient_query",
        "requests": (
            "Admission AssociationRequest EchoRequest FindRequest GetRequest MoveOriginator "
            "MoveRequest StoreRequest"
        ),
        "sending": "StoreOutcome",
        "server": "Server open_server serve serve_stream",
        "settings": "ServerOptions",
        "storing": "Mismatch MismatchPolicy OnMismatch Replacement StoreResult",
        "tls": "TLS_PROFILES TLSProfile tls_profile",
        "transcoding": "TranscodingError",
        "ups": "UnifiedProcedureSteps procedure_step_contexts",
        "ups_claim": "Claim",
        "ups_events": "StepEvent StepEvents",
        "ups_server": "ProcedureSteps StepStorage",
        "worklist": "WorklistFolder WorklistKeys worklist_matches worklist_query",
    }
    _HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})

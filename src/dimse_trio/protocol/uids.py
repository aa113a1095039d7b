"""SOP classes and transfer syntaxes by UID, with their PS3.6 keywords (PS3.6 Annex A).

A table and look-ups; `Service` says which DIMSE services a class is used with (PS3.4). Storage
classes that a workstation meets every day are marked `common`: those are proposed by default, as
128 presentation contexts do not hold all (PS3.8 §9.3.2.2).
"""

from __future__ import annotations

import enum

import attrs

from .errors import LocalProtocolError


class Service(enum.Enum):
    """The DIMSE services of a SOP class."""

    ECHO = "C-ECHO"
    STORAGE = "C-STORE"
    FIND = "C-FIND"
    MOVE = "C-MOVE"
    GET = "C-GET"
    NORMALIZED = "DIMSE-N"


@attrs.frozen
class SOPClass:
    """One SOP class of PS3.6 Table A-1."""

    uid: str
    keyword: str
    service: Service
    common: bool = False


@attrs.frozen
class TransferSyntax:
    """One transfer syntax of PS3.6 Table A-1.

    `native`: the data set is a plain sequence of elements, pixel data included, so that it can be
    re-encoded in another native syntax without touching a pixel (PS3.5 §A.1 to A.3, A.5).
    """

    uid: str
    keyword: str
    native: bool = False


IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

NATIVE_TRANSFER_SYNTAXES = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
"""The syntaxes without encapsulated pixel data, the one we like best first."""

_SOP_CLASSES = """
1.2.840.10008.1.1 Verification ECHO
1.2.840.10008.1.20.1 StorageCommitmentPushModel NORMALIZED
1.2.840.10008.1.40 ProceduralEventLogging NORMALIZED
1.2.840.10008.1.42 SubstanceAdministrationLogging NORMALIZED
1.2.840.10008.3.1.2.3.3 ModalityPerformedProcedureStep NORMALIZED
1.2.840.10008.3.1.2.3.4 ModalityPerformedProcedureStepRetrieve NORMALIZED
1.2.840.10008.3.1.2.3.5 ModalityPerformedProcedureStepNotification NORMALIZED
1.2.840.10008.5.1.1.1 BasicFilmSession NORMALIZED
1.2.840.10008.5.1.1.2 BasicFilmBox NORMALIZED
1.2.840.10008.5.1.1.4 BasicGrayscaleImageBox NORMALIZED
1.2.840.10008.5.1.1.4.1 BasicColorImageBox NORMALIZED
1.2.840.10008.5.1.1.9 BasicGrayscalePrintManagementMeta NORMALIZED
1.2.840.10008.5.1.1.14 PrintJob NORMALIZED
1.2.840.10008.5.1.1.15 BasicAnnotationBox NORMALIZED
1.2.840.10008.5.1.1.16 Printer NORMALIZED
1.2.840.10008.5.1.1.16.376 PrinterConfigurationRetrieval NORMALIZED
1.2.840.10008.5.1.1.18 BasicColorPrintManagementMeta NORMALIZED
1.2.840.10008.5.1.1.22 VOILUTBox NORMALIZED
1.2.840.10008.5.1.1.23 PresentationLUT NORMALIZED
1.2.840.10008.5.1.1.27 StoredPrintStorage STORAGE
1.2.840.10008.5.1.1.29 HardcopyGrayscaleImageStorage STORAGE
1.2.840.10008.5.1.1.30 HardcopyColorImageStorage STORAGE
1.2.840.10008.5.1.1.33 MediaCreationManagement NORMALIZED
1.2.840.10008.5.1.1.40 DisplaySystem NORMALIZED
1.2.840.10008.5.1.4.1.1.1 ComputedRadiographyImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.1.1 DigitalXRayImageStorageForPresentation STORAGE common
1.2.840.10008.5.1.4.1.1.1.1.1 DigitalXRayImageStorageForProcessing STORAGE common
1.2.840.10008.5.1.4.1.1.1.2 DigitalMammographyXRayImageStorageForPresentation STORAGE common
1.2.840.10008.5.1.4.1.1.1.2.1 DigitalMammographyXRayImageStorageForProcessing STORAGE common
1.2.840.10008.5.1.4.1.1.1.3 DigitalIntraOralXRayImageStorageForPresentation STORAGE common
1.2.840.10008.5.1.4.1.1.1.3.1 DigitalIntraOralXRayImageStorageForProcessing STORAGE common
1.2.840.10008.5.1.4.1.1.2 CTImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.2.1 EnhancedCTImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.2.2 LegacyConvertedEnhancedCTImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.3 UltrasoundMultiFrameImageStorageRetired STORAGE
1.2.840.10008.5.1.4.1.1.3.1 UltrasoundMultiFrameImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.4 MRImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.4.1 EnhancedMRImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.4.2 MRSpectroscopyStorage STORAGE common
1.2.840.10008.5.1.4.1.1.4.3 EnhancedMRColorImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.4.4 LegacyConvertedEnhancedMRImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.5 NuclearMedicineImageStorageRetired STORAGE
1.2.840.10008.5.1.4.1.1.6 UltrasoundImageStorageRetired STORAGE
1.2.840.10008.5.1.4.1.1.6.1 UltrasoundImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.6.2 EnhancedUSVolumeStorage STORAGE common
1.2.840.10008.5.1.4.1.1.6.3 PhotoacousticImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.7 SecondaryCaptureImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.7.1 MultiFrameSingleBitSecondaryCaptureImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.7.2 MultiFrameGrayscaleByteSecondaryCaptureImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.7.3 MultiFrameGrayscaleWordSecondaryCaptureImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.7.4 MultiFrameTrueColorSecondaryCaptureImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.8 StandaloneOverlayStorage STORAGE
1.2.840.10008.5.1.4.1.1.9 StandaloneCurveStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.1 WaveformStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.9.1.1 TwelveLeadECGWaveformStorage STORAGE common
1.2.840.10008.5.1.4.1.1.9.1.2 GeneralECGWaveformStorage STORAGE common
1.2.840.10008.5.1.4.1.1.9.1.3 AmbulatoryECGWaveformStorage STORAGE common
1.2.840.10008.5.1.4.1.1.9.1.4 General32bitECGWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.2.1 HemodynamicWaveformStorage STORAGE common
1.2.840.10008.5.1.4.1.1.9.3.1 CardiacElectrophysiologyWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.4.1 BasicVoiceAudioWaveformStorage STORAGE common
1.2.840.10008.5.1.4.1.1.9.4.2 GeneralAudioWaveformStorage STORAGE common
1.2.840.10008.5.1.4.1.1.9.5.1 ArterialPulseWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.6.1 RespiratoryWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.6.2 MultichannelRespiratoryWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.7.1 RoutineScalpElectroencephalogramWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.7.2 ElectromyogramWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.7.3 ElectrooculogramWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.7.4 SleepElectroencephalogramWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.9.8.1 BodyPositionWaveformStorage STORAGE
1.2.840.10008.5.1.4.1.1.10 StandaloneModalityLUTStorage STORAGE
1.2.840.10008.5.1.4.1.1.11 StandaloneVOILUTStorage STORAGE
1.2.840.10008.5.1.4.1.1.11.1 GrayscaleSoftcopyPresentationStateStorage STORAGE common
1.2.840.10008.5.1.4.1.1.11.2 ColorSoftcopyPresentationStateStorage STORAGE common
1.2.840.10008.5.1.4.1.1.11.3 PseudoColorSoftcopyPresentationStateStorage STORAGE common
1.2.840.10008.5.1.4.1.1.11.4 BlendingSoftcopyPresentationStateStorage STORAGE common
1.2.840.10008.5.1.4.1.1.11.5 XAXRFGrayscaleSoftcopyPresentationStateStorage STORAGE common
1.2.840.10008.5.1.4.1.1.11.6 GrayscalePlanarMPRVolumetricPresentationStateStorage STORAGE
1.2.840.10008.5.1.4.1.1.11.7 CompositingPlanarMPRVolumetricPresentationStateStorage STORAGE
1.2.840.10008.5.1.4.1.1.11.8 AdvancedBlendingPresentationStateStorage STORAGE common
1.2.840.10008.5.1.4.1.1.11.9 VolumeRenderingVolumetricPresentationStateStorage STORAGE
1.2.840.10008.5.1.4.1.1.11.10 SegmentedVolumeRenderingVolumetricPresentationStateStorage STORAGE
1.2.840.10008.5.1.4.1.1.11.11 MultipleVolumeRenderingVolumetricPresentationStateStorage STORAGE
1.2.840.10008.5.1.4.1.1.11.12 VariableModalityLUTSoftcopyPresentationStateStorage STORAGE
1.2.840.10008.5.1.4.1.1.12.1 XRayAngiographicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.12.1.1 EnhancedXAImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.12.2 XRayRadiofluoroscopicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.12.2.1 EnhancedXRFImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.12.3 XRayAngiographicBiPlaneImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.13.1.1 XRay3DAngiographicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.13.1.2 XRay3DCraniofacialImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.13.1.3 BreastTomosynthesisImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.13.1.4 BreastProjectionXRayImageStorageForPresentation STORAGE common
1.2.840.10008.5.1.4.1.1.13.1.5 BreastProjectionXRayImageStorageForProcessing STORAGE common
1.2.840.10008.5.1.4.1.1.14.1 IntravascularOpticalCoherenceTomographyImageStorageForPresentation STORAGE
1.2.840.10008.5.1.4.1.1.14.2 IntravascularOpticalCoherenceTomographyImageStorageForProcessing STORAGE
1.2.840.10008.5.1.4.1.1.20 NuclearMedicineImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.30 ParametricMapStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66 RawDataStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66.1 SpatialRegistrationStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66.2 SpatialFiducialsStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66.3 DeformableSpatialRegistrationStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66.4 SegmentationStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66.5 SurfaceSegmentationStorage STORAGE common
1.2.840.10008.5.1.4.1.1.66.6 TractographyResultsStorage STORAGE
1.2.840.10008.5.1.4.1.1.67 RealWorldValueMappingStorage STORAGE common
1.2.840.10008.5.1.4.1.1.68.1 SurfaceScanMeshStorage STORAGE
1.2.840.10008.5.1.4.1.1.68.2 SurfaceScanPointCloudStorage STORAGE
1.2.840.10008.5.1.4.1.1.77.1 VLImageStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.77.1.1 VLEndoscopicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.1.1 VideoEndoscopicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.2 VLMicroscopicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.2.1 VideoMicroscopicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.3 VLSlideCoordinatesMicroscopicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.4 VLPhotographicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.4.1 VideoPhotographicImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.1 OphthalmicPhotography8BitImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.2 OphthalmicPhotography16BitImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.3 StereometricRelationshipStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.4 OphthalmicTomographyImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.5 WideFieldOphthalmicPhotographyStereographicProjectionImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.6 WideFieldOphthalmicPhotography3DCoordinatesImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.5.7 OphthalmicOpticalCoherenceTomographyEnFaceImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.77.1.5.8 OphthalmicOpticalCoherenceTomographyBscanVolumeAnalysisStorage STORAGE
1.2.840.10008.5.1.4.1.1.77.1.6 VLWholeSlideMicroscopyImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.7 DermoscopicPhotographyImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.77.1.8 ConfocalMicroscopyImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.77.1.9 ConfocalMicroscopyTiledPyramidalImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.77.2 VLMultiFrameImageStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.78.1 LensometryMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.2 AutorefractionMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.3 KeratometryMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.4 SubjectiveRefractionMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.5 VisualAcuityMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.6 SpectaclePrescriptionReportStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.7 OphthalmicAxialMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.78.8 IntraocularLensCalculationsStorage STORAGE
1.2.840.10008.5.1.4.1.1.79.1 MacularGridThicknessAndVolumeReportStorage STORAGE
1.2.840.10008.5.1.4.1.1.80.1 OphthalmicVisualFieldStaticPerimetryMeasurementsStorage STORAGE
1.2.840.10008.5.1.4.1.1.81.1 OphthalmicThicknessMapStorage STORAGE
1.2.840.10008.5.1.4.1.1.82.1 CornealTopographyMapStorage STORAGE
1.2.840.10008.5.1.4.1.1.88.1 TextSRStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.88.2 AudioSRStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.88.3 DetailSRStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.88.4 ComprehensiveSRStorageTrial STORAGE
1.2.840.10008.5.1.4.1.1.88.11 BasicTextSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.22 EnhancedSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.33 ComprehensiveSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.34 Comprehensive3DSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.35 ExtensibleSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.40 ProcedureLogStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.50 MammographyCADSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.59 KeyObjectSelectionDocumentStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.65 ChestCADSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.67 XRayRadiationDoseSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.68 RadiopharmaceuticalRadiationDoseSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.69 ColonCADSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.70 ImplantationPlanSRStorage STORAGE
1.2.840.10008.5.1.4.1.1.88.71 AcquisitionContextSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.72 SimplifiedAdultEchoSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.73 PatientRadiationDoseSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.74 PlannedImagingAgentAdministrationSRStorage STORAGE
1.2.840.10008.5.1.4.1.1.88.75 PerformedImagingAgentAdministrationSRStorage STORAGE
1.2.840.10008.5.1.4.1.1.88.76 EnhancedXRayRadiationDoseSRStorage STORAGE common
1.2.840.10008.5.1.4.1.1.88.77 WaveformAnnotationSRStorage STORAGE
1.2.840.10008.5.1.4.1.1.90.1 ContentAssessmentResultsStorage STORAGE
1.2.840.10008.5.1.4.1.1.91.1 MicroscopyBulkSimpleAnnotationsStorage STORAGE
1.2.840.10008.5.1.4.1.1.104.1 EncapsulatedPDFStorage STORAGE common
1.2.840.10008.5.1.4.1.1.104.2 EncapsulatedCDAStorage STORAGE common
1.2.840.10008.5.1.4.1.1.104.3 EncapsulatedSTLStorage STORAGE
1.2.840.10008.5.1.4.1.1.104.4 EncapsulatedOBJStorage STORAGE
1.2.840.10008.5.1.4.1.1.104.5 EncapsulatedMTLStorage STORAGE
1.2.840.10008.5.1.4.1.1.128 PositronEmissionTomographyImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.128.1 LegacyConvertedEnhancedPETImageStorage STORAGE
1.2.840.10008.5.1.4.1.1.129 StandalonePETCurveStorage STORAGE
1.2.840.10008.5.1.4.1.1.130 EnhancedPETImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.131 BasicStructuredDisplayStorage STORAGE
1.2.840.10008.5.1.4.1.1.200.1 CTDefinedProcedureProtocolStorage STORAGE
1.2.840.10008.5.1.4.1.1.200.2 CTPerformedProcedureProtocolStorage STORAGE
1.2.840.10008.5.1.4.1.1.200.3 ProtocolApprovalStorage STORAGE
1.2.840.10008.5.1.4.1.1.200.4 ProtocolApprovalInformationModelFind FIND
1.2.840.10008.5.1.4.1.1.200.5 ProtocolApprovalInformationModelMove MOVE
1.2.840.10008.5.1.4.1.1.200.6 ProtocolApprovalInformationModelGet GET
1.2.840.10008.5.1.4.1.1.200.7 XADefinedProcedureProtocolStorage STORAGE
1.2.840.10008.5.1.4.1.1.200.8 XAPerformedProcedureProtocolStorage STORAGE
1.2.840.10008.5.1.4.1.1.201.1 InventoryStorage STORAGE
1.2.840.10008.5.1.4.1.1.201.2 InventoryFind FIND
1.2.840.10008.5.1.4.1.1.201.3 InventoryMove MOVE
1.2.840.10008.5.1.4.1.1.201.4 InventoryGet GET
1.2.840.10008.5.1.4.1.1.201.5 InventoryCreation NORMALIZED
1.2.840.10008.5.1.4.1.1.201.6 RepositoryQuery FIND
1.2.840.10008.5.1.4.1.1.481.1 RTImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.2 RTDoseStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.3 RTStructureSetStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.4 RTBeamsTreatmentRecordStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.5 RTPlanStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.6 RTBrachyTreatmentRecordStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.7 RTTreatmentSummaryRecordStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.8 RTIonPlanStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.9 RTIonBeamsTreatmentRecordStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.10 RTPhysicianIntentStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.11 RTSegmentAnnotationStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.12 RTRadiationSetStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.13 CArmPhotonElectronRadiationStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.14 TomotherapeuticRadiationStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.15 RoboticArmRadiationStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.16 RTRadiationRecordSetStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.17 RTRadiationSalvageRecordStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.18 TomotherapeuticRadiationRecordStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.19 CArmPhotonElectronRadiationRecordStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.20 RoboticRadiationRecordStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.21 RTRadiationSetDeliveryInstructionStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.22 RTTreatmentPreparationStorage STORAGE
1.2.840.10008.5.1.4.1.1.481.23 EnhancedRTImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.24 EnhancedContinuousRTImageStorage STORAGE common
1.2.840.10008.5.1.4.1.1.481.25 RTPatientPositionAcquisitionInstructionStorage STORAGE
1.2.840.10008.5.1.4.1.2.1.1 PatientRootQueryRetrieveInformationModelFind FIND
1.2.840.10008.5.1.4.1.2.1.2 PatientRootQueryRetrieveInformationModelMove MOVE
1.2.840.10008.5.1.4.1.2.1.3 PatientRootQueryRetrieveInformationModelGet GET
1.2.840.10008.5.1.4.1.2.2.1 StudyRootQueryRetrieveInformationModelFind FIND
1.2.840.10008.5.1.4.1.2.2.2 StudyRootQueryRetrieveInformationModelMove MOVE
1.2.840.10008.5.1.4.1.2.2.3 StudyRootQueryRetrieveInformationModelGet GET
1.2.840.10008.5.1.4.1.2.3.1 PatientStudyOnlyQueryRetrieveInformationModelFind FIND
1.2.840.10008.5.1.4.1.2.3.2 PatientStudyOnlyQueryRetrieveInformationModelMove MOVE
1.2.840.10008.5.1.4.1.2.3.3 PatientStudyOnlyQueryRetrieveInformationModelGet GET
1.2.840.10008.5.1.4.1.2.4.2 CompositeInstanceRootRetrieveMove MOVE
1.2.840.10008.5.1.4.1.2.4.3 CompositeInstanceRootRetrieveGet GET
1.2.840.10008.5.1.4.1.2.5.3 CompositeInstanceRetrieveWithoutBulkDataGet GET
1.2.840.10008.5.1.4.20.1 DefinedProcedureProtocolInformationModelFind FIND
1.2.840.10008.5.1.4.20.2 DefinedProcedureProtocolInformationModelMove MOVE
1.2.840.10008.5.1.4.20.3 DefinedProcedureProtocolInformationModelGet GET
1.2.840.10008.5.1.4.31 ModalityWorklistInformationModelFind FIND
1.2.840.10008.5.1.4.33 InstanceAvailabilityNotification NORMALIZED
1.2.840.10008.5.1.4.34.1 RTBeamsDeliveryInstructionStorageTrial STORAGE
1.2.840.10008.5.1.4.34.6.1 UnifiedProcedureStepPush NORMALIZED
1.2.840.10008.5.1.4.34.6.2 UnifiedProcedureStepWatch NORMALIZED
1.2.840.10008.5.1.4.34.6.3 UnifiedProcedureStepPull NORMALIZED
1.2.840.10008.5.1.4.34.6.4 UnifiedProcedureStepEvent NORMALIZED
1.2.840.10008.5.1.4.34.6.5 UnifiedProcedureStepQuery FIND
1.2.840.10008.5.1.4.34.7 RTBeamsDeliveryInstructionStorage STORAGE
1.2.840.10008.5.1.4.34.8 RTConventionalMachineVerification NORMALIZED
1.2.840.10008.5.1.4.34.9 RTIonMachineVerification NORMALIZED
1.2.840.10008.5.1.4.34.10 RTBrachyApplicationSetupDeliveryInstructionStorage STORAGE
1.2.840.10008.5.1.4.37.1 GeneralRelevantPatientInformationQuery FIND
1.2.840.10008.5.1.4.37.2 BreastImagingRelevantPatientInformationQuery FIND
1.2.840.10008.5.1.4.37.3 CardiacRelevantPatientInformationQuery FIND
1.2.840.10008.5.1.4.38.1 HangingProtocolStorage STORAGE
1.2.840.10008.5.1.4.38.2 HangingProtocolInformationModelFind FIND
1.2.840.10008.5.1.4.38.3 HangingProtocolInformationModelMove MOVE
1.2.840.10008.5.1.4.38.4 HangingProtocolInformationModelGet GET
1.2.840.10008.5.1.4.39.1 ColorPaletteStorage STORAGE
1.2.840.10008.5.1.4.39.2 ColorPaletteQueryRetrieveInformationModelFind FIND
1.2.840.10008.5.1.4.39.3 ColorPaletteQueryRetrieveInformationModelMove MOVE
1.2.840.10008.5.1.4.39.4 ColorPaletteQueryRetrieveInformationModelGet GET
1.2.840.10008.5.1.4.41 ProductCharacteristicsQuery FIND
1.2.840.10008.5.1.4.42 SubstanceApprovalQuery FIND
1.2.840.10008.5.1.4.43.1 GenericImplantTemplateStorage STORAGE
1.2.840.10008.5.1.4.43.2 GenericImplantTemplateInformationModelFind FIND
1.2.840.10008.5.1.4.43.3 GenericImplantTemplateInformationModelMove MOVE
1.2.840.10008.5.1.4.43.4 GenericImplantTemplateInformationModelGet GET
1.2.840.10008.5.1.4.44.1 ImplantAssemblyTemplateStorage STORAGE
1.2.840.10008.5.1.4.44.2 ImplantAssemblyTemplateInformationModelFind FIND
1.2.840.10008.5.1.4.44.3 ImplantAssemblyTemplateInformationModelMove MOVE
1.2.840.10008.5.1.4.44.4 ImplantAssemblyTemplateInformationModelGet GET
1.2.840.10008.5.1.4.45.1 ImplantTemplateGroupStorage STORAGE
1.2.840.10008.5.1.4.45.2 ImplantTemplateGroupInformationModelFind FIND
1.2.840.10008.5.1.4.45.3 ImplantTemplateGroupInformationModelMove MOVE
1.2.840.10008.5.1.4.45.4 ImplantTemplateGroupInformationModelGet GET
"""

SOP_CLASSES: dict[str, SOPClass] = {
    uid: SOPClass(uid, keyword, Service[service], bool(common))
    for uid, keyword, service, *common in map(str.split, _SOP_CLASSES.strip().splitlines())
}
"""SOP classes by UID."""

_TRANSFER_SYNTAXES = """
1.2.840.10008.1.2 ImplicitVRLittleEndian
1.2.840.10008.1.2.1 ExplicitVRLittleEndian
1.2.840.10008.1.2.1.98 EncapsulatedUncompressedExplicitVRLittleEndian
1.2.840.10008.1.2.1.99 DeflatedExplicitVRLittleEndian
1.2.840.10008.1.2.2 ExplicitVRBigEndian
1.2.840.10008.1.2.4.50 JPEGBaseline8Bit
1.2.840.10008.1.2.4.51 JPEGExtended12Bit
1.2.840.10008.1.2.4.52 JPEGExtended35
1.2.840.10008.1.2.4.53 JPEGSpectralSelectionNonHierarchical68
1.2.840.10008.1.2.4.54 JPEGSpectralSelectionNonHierarchical79
1.2.840.10008.1.2.4.55 JPEGFullProgressionNonHierarchical1012
1.2.840.10008.1.2.4.56 JPEGFullProgressionNonHierarchical1113
1.2.840.10008.1.2.4.57 JPEGLossless
1.2.840.10008.1.2.4.58 JPEGLosslessNonHierarchical15
1.2.840.10008.1.2.4.59 JPEGExtendedHierarchical1618
1.2.840.10008.1.2.4.60 JPEGExtendedHierarchical1719
1.2.840.10008.1.2.4.61 JPEGSpectralSelectionHierarchical2022
1.2.840.10008.1.2.4.62 JPEGSpectralSelectionHierarchical2123
1.2.840.10008.1.2.4.63 JPEGFullProgressionHierarchical2426
1.2.840.10008.1.2.4.64 JPEGFullProgressionHierarchical2527
1.2.840.10008.1.2.4.65 JPEGLosslessHierarchical28
1.2.840.10008.1.2.4.66 JPEGLosslessHierarchical29
1.2.840.10008.1.2.4.70 JPEGLosslessSV1
1.2.840.10008.1.2.4.80 JPEGLSLossless
1.2.840.10008.1.2.4.81 JPEGLSNearLossless
1.2.840.10008.1.2.4.90 JPEG2000Lossless
1.2.840.10008.1.2.4.91 JPEG2000
1.2.840.10008.1.2.4.92 JPEG2000MCLossless
1.2.840.10008.1.2.4.93 JPEG2000MC
1.2.840.10008.1.2.4.100 MPEG2MPML
1.2.840.10008.1.2.4.100.1 MPEG2MPMLF
1.2.840.10008.1.2.4.101 MPEG2MPHL
1.2.840.10008.1.2.4.101.1 MPEG2MPHLF
1.2.840.10008.1.2.4.102 MPEG4HP41
1.2.840.10008.1.2.4.102.1 MPEG4HP41F
1.2.840.10008.1.2.4.103 MPEG4HP41BD
1.2.840.10008.1.2.4.103.1 MPEG4HP41BDF
1.2.840.10008.1.2.4.104 MPEG4HP422D
1.2.840.10008.1.2.4.104.1 MPEG4HP422DF
1.2.840.10008.1.2.4.105 MPEG4HP423D
1.2.840.10008.1.2.4.105.1 MPEG4HP423DF
1.2.840.10008.1.2.4.106 MPEG4HP42STEREO
1.2.840.10008.1.2.4.106.1 MPEG4HP42STEREOF
1.2.840.10008.1.2.4.107 HEVCMP51
1.2.840.10008.1.2.4.108 HEVCM10P51
1.2.840.10008.1.2.4.201 HTJ2KLossless
1.2.840.10008.1.2.4.202 HTJ2KLosslessRPCL
1.2.840.10008.1.2.4.203 HTJ2K
1.2.840.10008.1.2.5 RLELossless
"""

TRANSFER_SYNTAXES: dict[str, TransferSyntax] = {
    uid: TransferSyntax(uid, keyword, uid in NATIVE_TRANSFER_SYNTAXES)
    for uid, keyword in map(str.split, _TRANSFER_SYNTAXES.strip().splitlines())
}
"""Transfer syntaxes by UID."""

_BY_KEYWORD = {entry.keyword: uid for uid, entry in (SOP_CLASSES | TRANSFER_SYNTAXES).items()}


def uid_of(keyword: str) -> str:
    """The UID of a SOP class or transfer syntax by its PS3.6 keyword, `"CTImageStorage"`.

    Raises:
        LocalProtocolError: There is none of that keyword; the message names the near ones.
    """
    try:
        return _BY_KEYWORD[keyword]
    except KeyError:
        import difflib

        near = difflib.get_close_matches(keyword, _BY_KEYWORD, n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise LocalProtocolError(
            f"no SOP class or transfer syntax has the keyword {keyword!r}{hint}"
        ) from None


def uid_name(uid: str) -> str:
    """The PS3.6 keyword of a UID where it has one here, else the UID itself."""
    entry = SOP_CLASSES.get(uid) or TRANSFER_SYNTAXES.get(uid)
    return uid if entry is None else entry.keyword


def new_uid() -> str:
    """A UID that nobody else has, from a random UUID (PS3.5 §B.2)."""
    import uuid

    return f"2.25.{uuid.uuid4().int}"


def sop_classes(service: Service) -> tuple[str, ...]:
    """The UIDs of every SOP class of one service."""
    return tuple(uid for uid, entry in SOP_CLASSES.items() if entry.service is service)


VERIFICATION = uid_of("Verification")
PATIENT_ROOT_FIND = uid_of("PatientRootQueryRetrieveInformationModelFind")
PATIENT_ROOT_MOVE = uid_of("PatientRootQueryRetrieveInformationModelMove")
PATIENT_ROOT_GET = uid_of("PatientRootQueryRetrieveInformationModelGet")
STUDY_ROOT_FIND = uid_of("StudyRootQueryRetrieveInformationModelFind")
STUDY_ROOT_MOVE = uid_of("StudyRootQueryRetrieveInformationModelMove")
STUDY_ROOT_GET = uid_of("StudyRootQueryRetrieveInformationModelGet")
MODALITY_WORKLIST_FIND = uid_of("ModalityWorklistInformationModelFind")

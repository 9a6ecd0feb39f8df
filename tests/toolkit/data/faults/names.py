"""Names of files and folders; the id is the folder's name."""

import unicodedata

from .build import Case, Change, beside, compressed, graded, named, refused, renamed, without

UPPER = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1GD", "t2": "T2"}
UCSF = UPPER | {"t1ce": "T1c"}
NEW = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
UNDER, DASH, BARE = "{id}_{token}.nii.gz", "{id}-{token}.nii.gz", "{token}.nii.gz"
OTHER = compressed(b"another image")


def folder(case: str, name: str) -> Case:
    """A folder of that name, files in the BraTS 2018 manner."""
    return graded(case, named(name))


def files(case: str, pattern: str, *more: Change, **tokens: str) -> Case:
    return graded(case, named(f"names {case}", pattern, **tokens), *more)


def tokens(case: str, modality: str, token: str) -> Case:
    return files(case, UNDER, **{modality: token})


MISSING = "missing"
DOUBLED = "more than one"

CASES: list[Case] = [
    graded("brats_2012", named("BRATS_HG0001", UNDER, **UPPER | {"t1ce": "T1C"})),
    graded("brats_2017", named("HGG/Brats17_2013_10_1", UNDER)),
    graded("brats_2018", named("LGG/Brats18_TCIA09_451_1", UNDER), beside("Brats18_TCIA09_451_1_seg.nii.gz", OTHER)),
    graded("brats_2019", named("HGG/BraTS19_CBICA_ALU_1", UNDER)),
    graded("brats_2020", named("BraTS20_Training_001", UNDER), beside("W39_1998.09.19_Segm.nii", OTHER)),
    graded("brats_2021", named("BraTS2021_00006", UNDER), beside("BraTS2021_00006_seg.nii.gz", OTHER)),
    graded("brats_2023", named("BraTS-GLI-00000-000", DASH, **NEW), beside("BraTS-GLI-00000-000-seg.nii.gz", OTHER)),
    graded("brats_2023_upper", named("BraTS-GLI-00027-001", DASH, **NEW | {"t2": "t2W"})),
    graded("brats_2023_africa", named("BraTS-SSA-00002-000", DASH, **NEW)),
    graded("brats_2024", named("BraTS-GLI-00005-100", DASH, **NEW)),
    graded(
        "ucsf_pdgm",
        named("UCSF-PDGM-0004_nifti", "UCSF-PDGM-0004_{token}.nii.gz", **UCSF),
        *(
            beside(f"UCSF-PDGM-0004_{rest}.nii.gz", OTHER)
            for rest in (
                "T1_bias",
                "T1c_bias",
                "T2_bias",
                "FLAIR_bias",
                "ADC",
                "SWI",
                "DTI_eddy_FA",
                "brain_segmentation",
                "brain_parenchyma_segmentation",
                "tumor_segmentation",
            )
        ),
    ),
    graded("upenn_gbm", named("UPENN-GBM-00001_11", UNDER, **UPPER), beside("UPENN-GBM-00001_11_segm.nii.gz", OTHER)),
    graded("egd", named("EGD-0001", BARE, **UPPER), beside("MASK.nii.gz", OTHER)),
    graded(
        "tcga",
        named("TCGA-02-0006", "{id}_1996.08.23_{token}.nii.gz", t1ce="t1Gd"),
        beside("TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz", OTHER),
    ),
    graded("lumiere", named("Patient-001", BARE, **UPPER | {"t1ce": "CT1"})),
    graded("bids", named("sub-01", "{id}_{token}.nii.gz", t1="T1w", t1ce="T1post", t2="T2w", flair="FLAIR")),
    graded("bids_contrast_as_entity", named("sub-02", UNDER, t1="T1w", t1ce="ce-gadolinium_T1w", t2="T2w")),
    graded("bids_contrast_short", named("sub-03", UNDER, t1="T1w", t1ce="ce-gd_acq-mprage_T1w", t2="T2w")),
    refused("bids_no_contrast", MISSING, named("sub-04", UNDER, t1="acq-a_T1w", t1ce="inv-1_T1map", t2="T2w")),
    refused("vsd_numbers", MISSING, named("VSD", "VSD.Brain.XX.O.MR_{token}.54513.nii.gz")),
    refused("decathlon", MISSING, named("imagesTr", "BRATS_001.nii.gz")),
    refused(
        "nnunet_numbers",
        MISSING,
        named("nnunet", "{id}_{token}.nii.gz", flair="0000", t1="0001", t1ce="0002", t2="0003"),
    ),
    *(tokens(f"t1ce_as_{token}", "t1ce", token) for token in ("T1CE", "t1Gd", "t1gad", "T1post", "T1wCE", "t1C")),
    *(tokens(f"t1_as_{token}", "t1", token) for token in ("T1W", "T1pre", "t1N")),
    *(tokens(f"flair_as_{token}", "flair", token) for token in ("Flair", "T2FLAIR", "T2-FLAIR", "t2_flair", "T2F")),
    files("mixed_case", "Case7_{token}.Nii.gZ", flair="fLaIr", t1="T1", t1ce="t1Ce", t2="T2"),
    files("upper_ending", "{token}.NII.GZ"),
    files("dashes", "a-b-{token}.nii.gz"),
    files("long_dashes", "a–{token}.nii.gz"),
    files("dots", "1998.09.19.{token}.nii.gz"),
    files("spaces", "visit 1 {token}.nii.gz"),
    files("spaces_behind", "x_{token}.nii.gz  "),
    files("spaces_before_ending", "x_{token} .nii.gz"),
    files("no_break_space", "x\u00a0{token}.nii.gz"),
    files("parentheses", "x ({token}).nii.gz"),
    files("doubled_separator", "x__{token}_.nii.gz"),
    files("quotes", "\"x\" 'y'_{token}.nii.gz"),
    files("markup", "[red]{{x}}_{token}.nii.gz"),
    files("decomposed", unicodedata.normalize("NFD", "Müller_{token}.nii.gz")),
    files("newline", "a\nb_{token}.nii.gz"),
    files("not_utf8", "a\udcff_{token}.nii.gz"),
    files("longest", "x" * 235 + "_{token}.nii.gz"),
    files("words_in_front", "flair_t1_t2_t1ce_{token}.nii.gz"),
    folder("words_in_id", "site_t1_flair_007"),
    folder("words_at_the_end_of_id", "patient-t1ce"),
    folder("word_alone", "t2"),
    folder("zeros_in_front", "000808310"),
    folder("number", "42"),
    folder("number_in_words", "1e5"),
    folder("word_of_a_language", "None"),
    folder("composed", unicodedata.normalize("NFC", "Jürgen é")),
    folder("decomposed_id", unicodedata.normalize("NFD", "Jürgen ö")),
    folder("script", "脑 瘤 #7 %20 'q'"),
    folder("right_to_left", "מטופל ١٢"),
    folder("picture", "🧠👩‍⚕️"),
    folder("quotes_in_id", 'O\'Brien "Bob"'),
    folder("formula", "=cmd|' ∕C calc'!A0"),
    folder("option", "-rf"),
    folder("option_long", "--help"),
    folder("shell", "$(reboot); `ls` & *?"),
    folder("markup_in_id", "[bold]x[/bold] {id} <b>"),
    folder("comma", "a,b;c\td"),
    folder("backslash", "a\\b"),
    folder("spaces_around", " case 1 "),
    folder("newline_in_id", "a\nb"),
    folder("not_utf8_in_id", "id\udce9"),
    folder("dot_inside", "a.nii.b"),
    folder("nested", "Müller Anna (2)/visite é 1"),
    graded("older_copy", beside("patient_t1 (1).nii.gz", OTHER)),
    graded("other_images", beside("x_t1_bias.nii.gz", OTHER), beside("x_swi.nii.gz", OTHER)),
    refused("doubled", DOUBLED, beside("run2_t1.nii.gz", OTHER)),
    refused("doubled_by_case", DOUBLED, beside("X_T1.NII.GZ", OTHER)),
    refused("doubled_by_ending", DOUBLED, beside("x_flair.nii", b"")),
    refused("doubled_by_token", DOUBLED, beside("x_t1gd.nii.gz", OTHER)),
    refused("doubled_by_copy", DOUBLED, beside("Copy of x_t2.nii.gz", OTHER)),
    refused("doubled_with_newline", DOUBLED, beside("a\nb_t2.nii.gz", OTHER)),
    *(refused(f"missing_{name}", f"^{name} missing", without(name)) for name in ("flair", "t1", "t1ce", "t2")),
    refused("missing_two", "t1 and t2 missing", without("t1"), without("t2")),
    refused("missing_by_ending", "t1 missing", renamed("t1", "x_t1.nii.bak")),
    refused("missing_by_gz_twice", "t1 missing", renamed("t1", "x_t1.nii.gz.gz")),
    refused("missing_by_token_in_two", "t1ce missing", renamed("t1ce", "x_t1_ce.nii.gz")),
    refused("missing_by_glued_token", "t2 missing", renamed("t2", "xt2.nii.gz")),
    refused("missing_by_mask", "t2 missing", renamed("t2", "x_t2_mask.nii.gz")),
]

"""What a collapse curve can be found to be: one code, and one sentence of help, each."""

OK = "ok"
NO_COLLAPSE = "no collapse up to F="  # the largest frequency follows
NOT_UNIMODAL = "not unimodal"
FORM_REJECTED = "form rejected"
NOT_IDENTIFIED = "not identified"
TOO_FEW_POINTS = "too few points"
STATUS_HELP = {
    OK: "a fall is shown, the form fits, F*'s interval lies inside the frequencies",
    NO_COLLAPSE: "no fall is shown up to the largest frequency; the largest that the data allow is told",
    NOT_UNIMODAL: "the counts do not rise once and then fall, beyond chance",
    FORM_REJECTED: "counts scatter more about the curve than chance allows",
    NOT_IDENTIFIED: "very different collapse points fit the counts, or the guessing floor is 1",
    TOO_FEW_POINTS: "fewer than four distinct frequencies, for three parameters",
}

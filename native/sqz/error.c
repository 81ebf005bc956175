/* What errors are called. */
#include "basics.h"

const char *sqz_error_text(sqz_error error) {
    static const char *const texts[] = {
        "all is well",
        "more memory is needed",
        "this is not a .sqz file",
        "the file has a later version of the format",
        "the file is cut short",
        "bytes follow the end of the file or of its head",
        "the file is damaged: a checksum differs",
        "a length in the file is impossible or too large",
        "the head of the file cannot be read",
        "the graph in the file is not a usable ONNX model",
        "a tensor cannot be decoded",
        "the graph uses an operator, or a setting of one, that is not supported",
        "the image has no pixels or too many, or the file cannot run in this precision",
        "the file asks for more than a file may",
    };
    return (u32)error < sizeof texts / sizeof *texts ? texts[error] : "an unknown error";
}

/* Classifies a photo: cc example.c sqz/*.c -o example && ./example pets.sqz photo.ppm */
#include <stdio.h>
#include <stdlib.h>
#include "sqz/sqz.h"

static void *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    *bytes = 0;
    if (file && !fseek(file, 0, SEEK_END) && (data = malloc((size_t)ftell(file) + 1))) {
        rewind(file);
        data[*bytes = fread(data, 1, (size_t)ftell(file) + 0, file)] = 0;
    }
    return data;
}

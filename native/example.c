/* Classifies a photo: cc example.c sqz/[a-z]*.c -o example && ./example pets.sqz photo.ppm */
#include <stdio.h>
#include <stdlib.h>
#include "sqz/sqz.h"

static int fail(const char *sentence) {
    fprintf(stderr, "example: %s\n", sentence);
    return 1;
}

int main(int count, char **arguments) {
    FILE *file = count == 3 ? fopen(arguments[1], "rb") : NULL;
    FILE *photo = count == 3 ? fopen(arguments[2], "rb") : NULL;
    if (!file || !photo) return fail("give it a .sqz file and a photo as binary PPM");

    static unsigned char bytes[64 << 20];
    size_t file_bytes = fread(bytes, 1, sizeof bytes, file), memory_bytes = 0;
    void *memory = NULL;
    sqz_network net;
    sqz_error error;
    while ((error = sqz_open(&net, bytes, file_bytes, memory, &memory_bytes)) == SQZ_MEMORY)
        if (!(memory = realloc(memory, memory_bytes))) break;
    if (error) return fail(sqz_error_text(error));

    int width, height;
    if (fscanf(photo, "P6 %d %d 255", &width, &height) != 2) return fail("this is no binary PPM");
    getc(photo);
    sqz_image image;
    size_t image_bytes = sqz_image_bytes(&net.preprocessing, width, height);
    unsigned char *row = malloc(image_bytes ? 3 * (size_t)width : 0);
    if (sqz_image_start(&image, &net.preprocessing, width, height, malloc(image_bytes)))
        return fail(sqz_error_text(SQZ_ARGUMENT));
    for (int y = 0; y < height && fread(row, 3, (size_t)width, photo) == (size_t)width; y++)
        sqz_image_rows(&image, row, 3, y, 1);

    float *input = malloc(sizeof(float) * (size_t)(net.channels * net.size * net.size));
    float *output = malloc(sizeof(float) * (size_t)net.classes);
    sqz_image_finish(&image, input);
    sqz_run(&net, input, output);
    if (!net.gives_probabilities) sqz_softmax(output, net.classes);
    for (int rank = 0, best = 0; rank < 5 && rank < net.classes; rank++, best = 0) {
        char label[80];
        for (int i = 1; i < net.classes; i++) best = output[i] > output[best] ? i : best;
        if (!sqz_label(&net, best, label, sizeof label)) snprintf(label, sizeof label, "class %d", best);
        printf("%7.4f%%  %s\n", 100 * (double)output[best], label);
        output[best] = -1;
    }
    return 0;
}

/* Judges any number of files: opens each as a program would, runs it once, and says what came of it.
 *
 *   clang -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all native/judge.c native/sqz/[a-z]*.c -o judge
 *
 * Of each file it reads, as 4 bytes each: its length, how many numbers its input is said to have, its
 * bytes, and these numbers as floats. It writes: the error (an sqz_error), microseconds of CPU time,
 * bytes of memory, how many scores follow (none if the input has another size), and these. So that
 * what a sanitizer finds ends the program, bench/damage.py builds it with them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "sqz/sqz.h"

static int read_all(void *to, size_t bytes) { return fread(to, 1, bytes, stdin) == bytes; }

int main(void) {
    uint32_t sizes[2]; /* of the file, in bytes; of its input, in floats */
    while (read_all(sizes, sizeof sizes)) {
        /* exactly as much as it takes, so that a byte beyond is found */
        unsigned char *file = malloc(sizes[0]);
        float *input = malloc(sizes[1] * sizeof *input), *output = NULL;
        if (!read_all(file, sizes[0]) || !read_all(input, sizes[1] * sizeof *input)) return 1;
        size_t need = 0, have = 0;
        void *memory = NULL;
        sqz_network net;
        sqz_error error;
        clock_t start = clock();
        while ((error = sqz_open(&net, file, sizes[0], memory, &need)) == SQZ_MEMORY) {
            if (need <= have) abort(); /* it would never end */
            free(memory);
            memory = malloc(have = need);
            if (!memory) break;
        }
        uint32_t answer[4] = {(uint32_t)error, 0, (uint32_t)have, 0};
        if (!error && sizes[1] == (uint64_t)net.channels * (uint64_t)net.size * (uint64_t)net.size) {
            answer[3] = (uint32_t)net.classes;
            output = malloc(answer[3] * sizeof *output);
            sqz_run(&net, input, output);
        }
        answer[1] = (uint32_t)((clock() - start) * 1000000.0 / CLOCKS_PER_SEC);
        fwrite(answer, sizeof answer, 1, stdout);
        fwrite(output, sizeof *output, answer[3], stdout);
        free(output);
        free(memory);
        free(input);
        free(file);
    }
    return 0;
}

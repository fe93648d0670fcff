// Runs a fuzzer's entry point on each file named on standard input, one path a line. Each input
// lies in an allocation of exactly its size, so that a byte read too far is seen.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(void) {
    char path[4096];
    while (fgets(path, sizeof path, stdin)) {
        path[strcspn(path, "\n")] = 0;
        FILE *file = fopen(path, "rb");
        if (!file || fseek(file, 0, SEEK_END)) {
            perror(path);
            return 2;
        }
        long size = ftell(file);
        rewind(file);
        uint8_t *data = malloc((size_t)size);
        if (size && fread(data, (size_t)size, 1, file) != 1) {
            perror(path);
            return 2;
        }
        fclose(file);
        puts(path);
        fflush(stdout);
        LLVMFuzzerTestOneInput(data, (size_t)size);
        free(data);
    }
    return 0;
}

#!/bin/sh
# Builds the coders to WebAssembly: build.sh OUT.wasm (needs clang and wasm-ld).
set -eu
cd "$(dirname "$0")"
exec clang --target=wasm32 -O2 -std=c11 -ffreestanding -nostdlib -Wall -Wextra -Werror \
  -Wl,--no-entry -Wl,--strip-all -Wl,--export=__heap_base \
  -Wl,--export=floats -Wl,--export=shared \
  -Wl,--export=huffman_encode -Wl,--export=huffman_decode \
  -o "$1" coder.c huffman.c

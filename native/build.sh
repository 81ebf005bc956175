#!/bin/sh
# Builds native/ to WebAssembly (needs clang and wasm-ld): build.sh coders|page|page-scalar OUT.wasm
#   coders       the coders, for Python
#   page         decoder and runtime with SIMD, for the web page
#   page-scalar  the same for browsers without SIMD
set -eu
cd "$(dirname "$0")"
compile="clang --target=wasm32 -ffreestanding -nostdlib -Wall -Wextra -Werror"
link="-Wl,--no-entry -Wl,--strip-all"

page() {
  out=$1
  shift
  exports=
  for name in $(sed -n 's/^EXPORT .*\(page_[a-z_]*\)(.*/\1/p' page.c); do
    exports="$exports -Wl,--export=$name"
  done
  objects=$(mktemp -d)
  trap 'rm -rf "$objects"' EXIT
  for source in page.c sqz/*.c; do
    $compile -std=c99 -Oz -flto -fno-unroll-loops -fvisibility=hidden "$@" -c "$source" \
      -o "$objects/$(echo "$source" | tr / _).o"
  done
  $compile $link $exports -flto -Wl,--compress-relocations -Wl,-z,stack-size=65536 -o "$out" "$objects"/*.o
}

case $1 in
coders)
  exec $compile $link -O2 -std=c11 -Wl,--export=__heap_base -Wl,--export=floats -Wl,--export=shared \
    -Wl,--export=huffman_encode -Wl,--export=huffman_decode -o "$2" coder.c huffman.c
  ;;
page) page "$2" -msimd128 ;;
page-scalar) page "$2" ;;
*)
  echo "build.sh: there is no $1" >&2
  exit 2
  ;;
esac

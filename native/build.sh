#!/bin/sh
# Builds native/ (needs clang and lld): build.sh coders|coders-x86_64-linux|page OUT
#   coders       the coders, for Python, to WebAssembly
#   coders-x86_64-linux  the same as a shared library that needs nothing, where that starts sooner
#   rounding, rounding-x86_64-linux  the inner loops of compression's rounding, likewise
#   page         decoder and runtime with SIMD, for the web page
set -eu
cd "$(dirname "$0")"
wasm="clang --target=wasm32 -ffreestanding -nostdlib -Wall -Wextra -Werror"
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
    $wasm -std=c99 -Oz -flto -fno-unroll-loops -fvisibility=hidden "$@" -c "$source" \
      -o "$objects/$(echo "$source" | tr / _).o"
  done
  $wasm $link $exports -flto -Wl,--compress-relocations -Wl,-z,stack-size=65536 -o "$out" "$objects"/*.o
}

native="clang --target=x86_64-unknown-linux-gnu -ffreestanding -nostdlib -Wall -Wextra -Werror"
shared="-std=c11 -fPIC -fvisibility=hidden -shared -fuse-ld=lld -Wl,--strip-all -Wl,--build-id=none -Wl,-z,norelro"

case $1 in
rounding)
  exec $wasm $link -O3 -std=c11 -msimd128 -Wl,--export=__heap_base -Wl,--export=round_rows \
    -Wl,--export=descend_rows -Wl,--export=add_products -o "$2" rounding.c
  ;;
rounding-x86_64-linux)
  exec $native -O3 $shared -o "$2" rounding.c
  ;;
coders)
  exec $wasm $link -O2 -std=c11 -Wl,--export=__heap_base -Wl,--export=model_bytes -Wl,--export=floats \
    -Wl,--export=shared -Wl,--export=whole -Wl,--export=text -Wl,--export=codes_bytes -Wl,--export=huffman_encode \
    -Wl,--export=huffman_decode -o "$2" -x c sqz/entropy_coder.h sqz/huffman_coder.h
  ;;
coders-x86_64-linux)
  # For any x86-64, without libc.
  exec $native -O2 $shared -o "$2" -x c sqz/entropy_coder.h sqz/huffman_coder.h
  ;;
page) page "$2" -msimd128 ;;
*)
  echo "build.sh: there is no $1" >&2
  exit 2
  ;;
esac

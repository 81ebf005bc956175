#!/bin/sh
# Builds native/ (needs clang and lld): build.sh WHAT OUT
#   coders       the coders, for Python, to WebAssembly
#   coders-x86_64-linux  the same as a shared library that needs nothing, where that starts sooner
#   rounding, rounding-x86_64-linux  the inner loops of compression's rounding, likewise
#   page         decoder and runtime with SIMD, whole: Python judges by it what a page can run
#   page-float, page-int8  what a page has, of which Python has read the file: layers of one precision,
#                packed
set -eu
cd "$(dirname "$0")"
wasm="clang --target=wasm32 -ffreestanding -nostdlib -Wall -Wextra -Werror"
link="-Wl,--no-entry -Wl,--strip-all"

page() {
  out=$1
  shift
  exports=
  for name in $(sed -n 's/^EXPORT .*\(page_[a-z_]*\)(.*/\1/p' page.c); do
    exports="$exports -Wl,--export-if-defined=$name"
  done
  objects=$(mktemp -d)
  trap 'rm -rf "$objects"' EXIT
  for source in page.c sqz/*.c; do
    $wasm -std=c99 -msimd128 -Oz -flto -fno-unroll-loops -fvisibility=hidden "$@" -c "$source" \
      -o "$objects/$(echo "$source" | tr / _).o"
  done
  $wasm $link $exports -flto -Wl,--compress-relocations -Wl,-z,stack-size=65536 -o "$out" "$objects"/*.o
}

packed() {
  packed=$1
  shift
  built=$(mktemp -d)
  page "$built/page.wasm" -DSQZ_TRUSTED "$@"
  clang -O2 -ffp-contract=off -std=c99 -Wall -Wextra -Werror -o "$built/pack" pack.c
  "$built/pack" "$packed" "$built/page.wasm"
  rm -rf "$built"
}

native="clang --target=x86_64-unknown-linux-gnu -ffreestanding -nostdlib -Wall -Wextra -Werror"
shared="-std=c11 -fPIC -fvisibility=hidden -shared -fuse-ld=lld -Wl,--strip-all -Wl,--build-id=none -Wl,-z,norelro"

# plain OUT EXPORTS OPTIONS SOURCE...: compiled and linked apart, as clang hands what it links with -O to wasm-opt,
# where that is installed, and other bytes come of it.
plain() {
  out=$1 exports= options=$3 objects=
  for name in __heap_base $2; do exports="$exports -Wl,--export=$name"; done
  shift 3
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  for source in "$@"; do
    objects="$objects $folder/$(echo "$source" | tr / _).o"
    $wasm -std=c11 $options -x c -c "$source" -o "${objects##* }"
  done
  $wasm $link $exports -o "$out" $objects
}

case $1 in
rounding) plain "$2" "round_rows descend_rows descend_rows_like add_products" "-O3 -msimd128" rounding.c ;;
rounding-x86_64-linux)
  exec $native -O3 $shared -o "$2" rounding.c
  ;;
coders)
  plain "$2" "model_bytes floats shared whole text codes_bytes huffman_encode huffman_decode \
    moved moved_floats text_behind" -O2 sqz/entropy_coder.h sqz/huffman_coder.h sqz/delta_coder.h
  ;;
coders-x86_64-linux)
  # For any x86-64, without libc.
  exec $native -O2 $shared -o "$2" -x c sqz/entropy_coder.h sqz/huffman_coder.h \
    sqz/delta_coder.h
  ;;
page) page "$2" ;;
page-float) packed "$2" -DSQZ_NO_INT8 ;;
page-int8) packed "$2" -DSQZ_NO_FLOAT ;;
*)
  echo "build.sh: there is no $1" >&2
  exit 2
  ;;
esac

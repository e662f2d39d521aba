# Where everything lies; sourced by the other scripts, after `cd` to the repository root.
# Each place can be set from outside.

: "${SAKER_CACHE:=$HOME/.cache/saker}"
: "${CARGO_TARGET_DIR:=$SAKER_CACHE/target}"
runtime="$SAKER_CACHE/runtime"
: "${SAKER_TRITON:=$runtime/triton/pytriton/tritonserver/bin/tritonserver}"
: "${ORT_DYLIB_PATH:=$runtime/onnxruntime/libonnxruntime.so}"
: "${SAKER_VALKEY:=$runtime/valkey/valkey-server}"
: "${SAKER_NVTABULAR:=$runtime/nvtabular/bin/python}"
: "${SAKER_BACKENDS:=$PWD/.saker/backends}"
# rustup's programs, in a shell that was opened before rustup was installed.
command -v cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
export SAKER_CACHE CARGO_TARGET_DIR SAKER_TRITON ORT_DYLIB_PATH SAKER_VALKEY SAKER_NVTABULAR SAKER_BACKENDS

script_name=$(basename "$0")

say() { printf '[%s] %s\n' "$script_name" "$*"; }

die() {
    printf '[%s] error: %s\n' "$script_name" "$*" >&2
    exit 1
}

usage() { # the comment block at the top of the script
    sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

# Seconds since `$1`, a value of $SECONDS.
elapsed() { printf '%d s' $((SECONDS - $1)); }

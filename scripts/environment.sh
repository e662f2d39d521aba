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
# rust-toolchain.toml names a version. A machine that has it under another name, such as stable, need not install it again.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && command -v rustup >/dev/null; then
    pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    if ! rustup toolchain list | grep -q "^$pinned-" && [ "$(cd / && rustc --version 2>/dev/null | cut -d ' ' -f 2)" = "$pinned" ]; then
        RUSTUP_TOOLCHAIN=$(cd / && rustup show active-toolchain | cut -d ' ' -f 1)
        export RUSTUP_TOOLCHAIN
    fi
fi
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

# Starts the script anew, with the same arguments, once no other build or test of any checkout runs: checkouts share the
# compiled files, and what one builds throws away what another tests.
alone() {
    [ -z "${SAKER_ALONE:-}" ] || return 0
    mkdir -p "$CARGO_TARGET_DIR"
    flock --nonblock "$CARGO_TARGET_DIR/lock" true || say "waiting until another build or test has ended"
    # --close: what the script starts, such as a server, does not hold the lock on.
    SAKER_ALONE=1 exec flock --close "$CARGO_TARGET_DIR/lock" "scripts/$script_name" "$@"
}

# Seconds since `$1`, a value of $SECONDS.
elapsed() { printf '%d s' $((SECONDS - $1)); }

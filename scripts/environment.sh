# Where everything lies; sourced by the other scripts, after `cd` to the repository root.
# Each place can be set from outside.

: "${SAKER_CACHE:=$HOME/.cache/saker}"
# Each checkout compiles into a folder of its own. `alone` links there what another checkout has compiled of the dependencies.
if [ -n "${CARGO_TARGET_DIR:-}" ]; then
    : "${SAKER_BALLISTA_TARGET:=$CARGO_TARGET_DIR-ballista}"
else
    CARGO_TARGET_DIR=$SAKER_CACHE/builds/$(basename "$PWD")-$(cksum <<<"$PWD" | cut -d ' ' -f 1)
    SAKER_BALLISTA_TARGET=$SAKER_CACHE/target-ballista
fi
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
export SAKER_CACHE CARGO_TARGET_DIR SAKER_BALLISTA_TARGET SAKER_TRITON ORT_DYLIB_PATH SAKER_VALKEY SAKER_NVTABULAR SAKER_BACKENDS

script_name=$(basename "$0")

say() { printf '[%s] %s\n' "$script_name" "$*"; }

die() {
    printf '[%s] error: %s\n' "$script_name" "$*" >&2
    exit 1
}

usage() { # the comment block at the top of the script
    sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

# Whether a folder is a checkout of Saker.
is_checkout() { [ -n "$1" ] && [ -f "$1/scripts/environment.sh" ]; }

# Fills the folder of compiled files of a checkout that compiles for the first time: with that of a checkout that was deleted, else with
# links to the dependencies that another checkout has compiled. Removes the folders of other deleted checkouts.
seed_target() {
    local folder folders newest='' checkout
    case "$CARGO_TARGET_DIR" in "$SAKER_CACHE"/builds/*) ;; *) return 0 ;; esac
    # "target": where all checkouts compiled before each one had a folder of its own.
    mapfile -t folders < <(ls -td "$SAKER_CACHE"/builds/*/checkout "$SAKER_CACHE"/target/checkout 2>/dev/null)
    for folder in "${folders[@]}"; do
        folder=$(dirname "$folder")
        checkout=$(cat "$folder/checkout")
        if [ -z "$newest" ] && [ ! -d "$CARGO_TARGET_DIR/release" ] && [ -d "$folder/release" ]; then
            newest=$folder
            rm -rf "$CARGO_TARGET_DIR.new"
            if is_checkout "$checkout" && [ "$checkout" != "$PWD" ]; then
                say "linking the dependencies that $checkout has compiled"
                mkdir -p "$CARGO_TARGET_DIR.new/release"
                cp "$folder/checkout" "$folder/.rustc_info.json" "$CARGO_TARGET_DIR.new/"
                # Copies of what builds rewrite in place. cargo records a file as compiled after it has written it, so the records come first.
                cp -a "$folder/release/.fingerprint" "$folder/release/build" "$CARGO_TARGET_DIR.new/release/"
                cp -al "$folder/release/deps" "$CARGO_TARGET_DIR.new/release/"
            else
                mv "$folder" "$CARGO_TARGET_DIR.new"
            fi
            rm -rf "$CARGO_TARGET_DIR"
            mv "$CARGO_TARGET_DIR.new" "$CARGO_TARGET_DIR"
        elif ! is_checkout "$checkout"; then
            say "removing what the deleted checkout $checkout has compiled"
            rm -rf "$folder"
        fi
    done
}

# Starts the script anew, with the same arguments, once no other script builds or tests with the same compiled files.
alone() {
    case "${SAKER_ALONE:-}" in
    "")
        mkdir -p "$SAKER_CACHE/builds"
        (flock 9 && seed_target) 9>"$SAKER_CACHE/builds/lock"
        mkdir -p "$CARGO_TARGET_DIR"
        flock --nonblock "$CARGO_TARGET_DIR/lock" true || say "waiting until another build or test has ended"
        # --close: what the script starts, such as a server, does not hold the lock on.
        SAKER_ALONE=first exec flock --close "$CARGO_TARGET_DIR/lock" "scripts/$script_name" "$@"
        ;;
    first)
        # cargo tells equally named crates of two checkouts apart by the files' times alone.
        if [ -d "$CARGO_TARGET_DIR/release" ] && [ "$(cat "$CARGO_TARGET_DIR/checkout" 2>/dev/null)" != "$PWD" ]; then
            cargo clean --quiet --release --workspace
        fi
        printf '%s\n' "$PWD" >"$CARGO_TARGET_DIR/checkout"
        # The newest build can be seen, and reached, from the checkout.
        mkdir -p .saker
        [ "$(readlink .saker/target)" = "$CARGO_TARGET_DIR" ] || ln -sfn "$CARGO_TARGET_DIR" .saker/target
        export SAKER_ALONE=yes
        ;;
    esac
}

# Seconds since `$1`, a value of $SECONDS.
elapsed() { printf '%d s' $((SECONDS - $1)); }

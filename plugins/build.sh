#!/usr/bin/env bash
# Builds every plugin into plugins/dist/NAME.wasm; quick when nothing changed.
#
#   plugins/build.sh             builds what this machine can, says what it skips
#   plugins/build.sh --install   first installs what is missing (as `make test` does)
#   plugins/build.sh --strict    fails when anything is skipped (as CI does)
#   plugins/build.sh --test      builds nothing: runs the tests that are not cargo's
#
# Rust: the target wasm32-unknown-unknown through rustup; where rustup can't fetch it,
# Debian's rust-web-src builds the standard library beside the plugins.
# C: clang and wasm-ld (Debian: clang lld), or Zig's. Zig: zig, or PyPI's ziglang.
# JavaScript: Node.js with npm's componentize-qjs. Python: PyPI's componentize-py.
# What comes from npm and PyPI lies in plugins/target, in the versions of package-lock.json
# and requirements.txt.
set -euo pipefail
cd "$(dirname "$0")"

install='' strict='' test='' skipped=''
for argument in "$@"; do
    case $argument in
        --install) install=yes ;;
        --strict) strict=yes ;;
        --test) test=yes ;;
        *) echo "usage: plugins/build.sh [--install] [--strict] [--test]" >&2; exit 2 ;;
    esac
done

target=wasm32-unknown-unknown
sdk=../plugin-sdk
component_type=$sdk/c/key_plugin_component_type.s
rust_plugins=(normalize-query device-class api-compose signed-origin hello-wasi-http)
c_plugins=(strip-trailing-slash)
zig_plugins=(lowercase-path-zig)
js_plugins=(ab-bucket-js render-page-js)
python_plugins=(geo-key-py feed-merge-py)

# What a plugin exports and imports besides `manifest` and `log`.
declare -A uses=(
    [ab-bucket-js]='key'
    [render-page-js]='load fetch'
    [geo-key-py]='key'
    [feed-merge-py]='load fetch'
)
declare -A flags=([feed-merge-py]='--wasi')

mkdir -p dist target
# Tests in several processes may build at once.
if command -v flock >/dev/null; then exec 8>target/.building && flock 8; fi

skip() {
    echo "plugins/build.sh: skipped $1: $2" >&2
    skipped=yes
}

# Copies only what changed, so that whoever watches dist/ sees no needless change.
ship() {
    cmp -s "$1" "dist/$2.wasm" || { cp "$1" "dist/$2.wasm.part" && mv "dist/$2.wasm.part" "dist/$2.wasm"; }
    printf '%-32s %8d bytes\n' "plugins/dist/$2.wasm" "$(wc -c <"dist/$2.wasm")"
}

# Whether target/NAME.wasm is newer than all that it is made of.
fresh() {
    local made=target/$1.wasm
    shift
    [ -e "$made" ] && [ -z "$(find "$@" build.sh -newer "$made" -type f ! -path '*/__pycache__/*' -print -quit)" ]
}

debian() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null 2>&1
}

has_target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]
}

# CARGO_TARGET_DIR and flags of the gateway's own build are none of ours.
cargo_wasm() {
    env -u RUSTFLAGS -u CARGO_TARGET_DIR "$@" build --locked --quiet --release --target $target --target-dir target
}

build_rust() {
    has_target || rustup target add $target >/dev/null 2>&1 || true
    if has_target; then
        cargo_wasm cargo
        return
    fi
    # Debian's own compiler: RUSTC_BOOTSTRAP lets a stable cargo build the standard library.
    [ -z "$install" ] || debian rustc-web cargo-web rust-web-src lld-19 || true
    command -v wasm-ld-19 >/dev/null && [ -d /usr/src/rustc-web ] || return 1
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
        cargo_wasm /usr/bin/cargo -Zbuild-std=std,panic_abort
}

python=target/python/bin/python
# Both are installed anew when their list changed.
install_npm() {
    cmp -s package-lock.json target/js/package-lock.json && [ -d target/js/node_modules/componentize-qjs ] && return
    command -v npm >/dev/null || debian nodejs npm || return 1
    mkdir -p target/js && cp package.json target/js/
    # Not `npm ci`: it insists on optional packages of other systems that were never published.
    cp package-lock.json target/js/ && npm install --prefix target/js --no-audit --no-fund --silent >&2 || return 1
    # As it is here, whatever npm made of it: it says that the rest is there.
    cp package-lock.json target/js/
}

install_pypi() {
    cmp -s requirements.txt target/python/requirements.txt && return
    python3 -m venv target/python >/dev/null 2>&1 ||
        { debian python3 python3-venv && python3 -m venv target/python >/dev/null; } || return 1
    target/python/bin/pip install --quiet --disable-pip-version-check -r requirements.txt >&2 || return 1
    cp requirements.txt target/python/
}

# Prints the command that compiles C for wasm, or fails.
c_compiler() {
    local version
    for version in '' -19 -18 -17 -16 -15 -14; do
        if command -v "clang$version" >/dev/null && command -v "wasm-ld$version" >/dev/null; then
            echo "clang$version --target=wasm32 -nostdlib"
            return
        fi
    done
    local zig
    zig=$(zig_command) && echo "$zig cc --target=wasm32-freestanding -nostdlib"
}

# Prints the command that is Zig, or fails. The installed one comes first: the language
# changes from version to version.
zig_command() {
    local candidate
    for candidate in "$python" python3; do
        "$candidate" -m ziglang version >/dev/null 2>&1 && { echo "$candidate -m ziglang"; return; }
    done
    type -P zig
}

run_tests() {
    local name compiler
    if command -v node >/dev/null; then
        node --test $(printf '%s/*.test.js ' "${js_plugins[@]}")
    else
        skip "tests of ${js_plugins[*]}" "no Node.js"
    fi
    for name in "${python_plugins[@]}"; do
        (cd "$name" && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest -q)
    done
    if compiler=$(zig_command); then
        for name in "${zig_plugins[@]}"; do $compiler test "$name/lower.zig" --cache-dir target/zig; done
    else
        skip "tests of ${zig_plugins[*]}" "no zig"
    fi
}

if [ -n "$install" ]; then
    install_npm || echo "plugins/build.sh: npm could not install componentize-qjs" >&2
    install_pypi || echo "plugins/build.sh: pip could not install requirements.txt" >&2
fi

if [ -n "$test" ]; then
    run_tests
    [ -z "$strict" ] || [ -z "$skipped" ]
    exit
fi

if build_rust; then
    for name in "${rust_plugins[@]}"; do
        ship "target/$target/release/${name//-/_}.wasm" "$name"
    done
elif has_target; then
    echo "plugins/build.sh: the Rust plugins do not compile" >&2
    exit 1
else
    skip "${rust_plugins[*]}" "no Rust target $target (rustup target add $target)"
fi

[ -z "$install" ] || c_compiler >/dev/null || debian clang lld || true
if compiler=$(c_compiler); then
    for name in "${c_plugins[@]}"; do
        # The second file holds the component type; see plugin-sdk/c/README.md.
        fresh "$name" "$name" $sdk/c ||
            $compiler -std=c11 -O2 -mbulk-memory -Wall -Wextra -Werror -I $sdk/c -Wl,--no-entry \
                -o "target/$name.wasm" "$name/plugin.c" $component_type
        ship "target/$name.wasm" "$name"
    done
else
    skip "${c_plugins[*]}" "no clang with wasm-ld, and no zig (plugins/build.sh --install)"
fi

if compiler=$(zig_command); then
    for name in "${zig_plugins[@]}"; do
        fresh "$name" "$name" $sdk/c $sdk/zig ||
            $compiler build-exe -target wasm32-freestanding -fno-entry -rdynamic -O ReleaseSmall \
                --cache-dir target/zig --dep lamina -Mroot="$name/plugin.zig" $component_type \
                -Mlamina=$sdk/zig/lamina.zig -femit-bin="target/$name.wasm"
        ship "target/$name.wasm" "$name"
    done
else
    skip "${zig_plugins[*]}" "no zig (plugins/build.sh --install)"
fi

if command -v node >/dev/null && [ -d target/js/node_modules/componentize-qjs ]; then
    for name in "${js_plugins[@]}"; do
        fresh "$name" "$name" $sdk/js $sdk/wit package-lock.json ||
            NODE_PATH=target/js/node_modules node $sdk/js/build.mjs "$name/plugin.js" "target/$name.wasm" ${uses[$name]}
        ship "target/$name.wasm" "$name"
    done
else
    skip "${js_plugins[*]}" "no componentize-qjs (plugins/build.sh --install)"
fi

if [ -e target/python/bin/componentize-py ]; then
    for name in "${python_plugins[@]}"; do
        fresh "$name" "$name" $sdk/python $sdk/wit requirements.txt ||
            (cd "$name" && ../$python ../$sdk/python/build.py ${flags[$name]-} plugin "../target/$name.wasm" ${uses[$name]})
        ship "target/$name.wasm" "$name"
    done
else
    skip "${python_plugins[*]}" "no componentize-py (plugins/build.sh --install)"
fi

if [ -n "$strict" ] && [ -n "$skipped" ]; then exit 1; fi

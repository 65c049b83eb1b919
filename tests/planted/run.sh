#!/usr/bin/env bash
# Plants each bug of this folder in a copy of the checkout, and sees whether `tollgate chaos` finds it: without one the books
# agree, with one they must not. Takes a quarter of an hour; give names of patches to plant those alone.
#
#     tests/planted/run.sh [NAME...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

root=$PWD
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/planted}
git clone --quiet --no-hardlinks "$root" "$copy/tollgate"
cd "$copy/tollgate"

# Prints the differences; fails when the run itself fails.
chaos() {
    cargo build --quiet --locked
    local status=0
    "$CARGO_TARGET_DIR/debug/tollgate" chaos --minutes 1 --seed 1 --faults "$1" >"$copy/books" 2>"$copy/log" || status=$?
    if ! grep -q '^the books' "$copy/books"; then
        tail -20 "$copy/log"
        return 1
    fi
    # Below the empty line, whatever is not nothing.
    sed '1,/^$/d' "$copy/books" | grep -v ' 0  $'
    return 0
}

faults_of() {
    case $1 in
        ack-without-commit) echo kill,postgres ;;
        # A worker that stalls and goes on when another has its job is what the fence is for.
        no-fence) echo kill,stall ;;
        *) echo kill,nats,double ;;
    esac
}

missed=0
echo "==> nothing planted"
chaos kill,nats,postgres,double | tee "$copy/found"
grep -q '^the books agree' "$copy/found" || missed=1
if [ $# -eq 0 ]; then
    set -- tests/planted/*.patch
    set -- "${@##*/}"
fi
for name in "$@"; do
    name=${name%.patch}
    echo "==> $name"
    git apply "tests/planted/$name.patch"
    chaos "$(faults_of "$name")" | tee "$copy/found"
    git checkout --quiet .
    if ! grep -q 'NOT agree' "$copy/found"; then
        echo "    not found"
        missed=1
    fi
done
exit "$missed"

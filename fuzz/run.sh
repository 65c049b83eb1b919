#!/bin/sh
# Fuzzes each target for so many seconds (60 unless told) with the stable compiler: fuzz/run.sh [SECONDS]
# Needs a C++ compiler and Python. What is found is left in fuzz/artifacts; the exit status says whether anything was.
set -eu
cd "$(dirname "$0")"
seconds=${1:-60}
target=$(rustc -vV | sed -n 's/host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
coverage="$coverage -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
RUSTFLAGS="--cfg fuzzing $coverage -Ccodegen-units=1 -Cdebug-assertions" cargo build --release --target "$target"
python3 seeds.py corpus words.dict
found=0
for name in request answer config queue; do
    mkdir -p "corpus/$name" "artifacts/$name"
    echo "$name:"
    "target/$target/release/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" -dict=words.dict \
        -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        > "artifacts/$name.log" 2>&1 || found=1
    grep -E "ERROR|SUMMARY|panicked|stat::number_of_executed_units|cov: .*DONE" "artifacts/$name.log" || true
done
exit "$found"

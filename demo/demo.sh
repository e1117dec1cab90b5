#!/usr/bin/env bash
# The walk through ragassets that `make demo` takes, in a fresh folder: demo/demo.sh [FOLDER]
set -euo pipefail

folder=${1:-.demo}

bold=''
dim=''
plain=''
if [ -t 1 ]; then
    bold=$(tput bold 2>/dev/null || true)
    dim=$(tput setaf 6 2>/dev/null || true)
    plain=$(tput sgr0 2>/dev/null || true)
fi

step() { printf '\n%s== %s%s\n' "$bold" "$1" "$plain"; }
say() { printf '%s\n' "$*"; }
# Shows a command as one would type it, then runs it.
run() {
    local word line='$'
    for word in "$@"; do
        case $word in
        *\ *) line="$line \"$word\"" ;;
        *) line="$line $word" ;;
        esac
    done
    printf '%s%s%s\n' "$dim" "$line" "$plain"
    "$@"
}

if [ -e "$folder" ]; then
    # Only a folder that an earlier demo made is removed.
    if [ ! -f "$folder/.made-by-demo" ]; then
        say "$folder exists and was not made by the demo. Name another: demo/demo.sh FOLDER" >&2
        exit 2
    fi
    rm -rf -- "$folder"
fi
# The demo's own instance and configuration, whatever the caller has set.
unset DAGSTER_HOME RAGASSETS_CONFIG

step "1. A configuration and a sample corpus: the handbook of an invented company"
run ragassets init "$folder"
touch "$folder/.made-by-demo"
cd "$folder"
say "$(find documents -type f | wc -l) files in $(find documents -type f | sed 's/.*\.//' | sort -u | wc -l) formats:" \
    "$(find documents -type f | sed 's/.*\.//' | sort -u | tr '\n' ' ')"

step "2. Make it searchable: parse, check, clean, remove duplicates, chunk, embed, index"
run ragassets ingest

step "3. What is there now"
run ragassets status

step "4. Three searches"
run ragassets search "how much may a hotel cost" -k 3
run ragassets search "how quickly must I acknowledge a page at night" -k 3
run ragassets search "error FH-2003" --mode hybrid -k 3

step "5. What could not be used, and why"
run ragassets dead-letters list

step "6. Edit one paragraph of a long document, ingest again: only that paragraph is embedded"
run sed -i 's/Acknowledge the page within fifteen minutes/Acknowledge the page within ten minutes/' \
    documents/engineering/on-call-runbook.md
run ragassets ingest
run ragassets search "how quickly must I acknowledge a page at night" -k 1

step "7. Nothing has changed: nothing is computed"
run ragassets ingest
run ragassets status

step "Every run, asset and partition is in the Dagster UI"
say "  cd $(pwd) && $(command -v dagster) dev"
say "and open the address that it prints (usually port 3000 of this machine)."

# Read by tests/browser, tests/examples and tests/schemathesis, in the root of the repository: starts `fleetgate demo` and
# waits for its login link. `days`: those of history that it has. `data` is a directory that goes when the test ends; the
# data of the demo are in `$data/demo`.
program=$(realpath "${FLEETGATE_TEST_PROGRAM:-target/debug/fleetgate}")
data=$(mktemp -d)

# A demo that has ended by itself says why.
finish() {
    kill "$demo" 2>/dev/null || cat "$data/out" "$data/err" >&2
    wait "$demo" 2>/dev/null || true
    rm -rf "$data"
}

start() {
    "$program" --data "$data/demo" demo --past "${days:-30}" >"$data/out" 2>"$data/err" 9>&- &
    demo=$!
}

# A demo looks for free ports before it takes them. So one starts after the other, and again if another program was
# faster.
exec 9>"${TMPDIR:-/tmp}/fleetgate-demo-$(id -u).lock"
flock 9
start
trap finish EXIT

# It starts in a moment, and takes far longer beside a compiler and tests that go first.
starts=1
for _ in $(seq 900); do
    grep -q '/login#' "$data/out" && break
    if ! kill -0 "$demo" 2>/dev/null; then
        if [ "$starts" -ge 5 ] || ! grep -q 'in use' "$data/err"; then
            cat "$data/out" "$data/err" >&2
            exit 1
        fi
        starts=$((starts + 1))
        start
    fi
    sleep 0.2
done
exec 9>&-
link=$(grep -o 'http[^ ]*/login#[^ ]*' "$data/out" | head -n 1) || true
[ -n "$link" ] || { echo "the demo printed no login link" >&2; cat "$data/out" "$data/err" >&2; exit 1; }

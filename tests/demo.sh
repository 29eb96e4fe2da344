# Read by tests/browser, tests/examples and tests/schemathesis, in the root of the repository: starts `fleetgate demo` and
# waits for its login link. `data` is a directory that goes when the test ends; the data of the demo are in `$data/demo`.
program=$(realpath "${FLEETGATE_TEST_PROGRAM:-target/debug/fleetgate}")
data=$(mktemp -d)

"$program" --data "$data/demo" demo >"$data/out" 2>"$data/err" &
demo=$!
finish() {
    kill "$demo" 2>/dev/null || true
    wait "$demo" 2>/dev/null || true
    rm -rf "$data"
}
trap finish EXIT

# It starts in a moment, and takes far longer beside a compiler and tests that go first.
for _ in $(seq 900); do
    grep -q '/login#' "$data/out" && break
    kill -0 "$demo" 2>/dev/null || { cat "$data/out" "$data/err" >&2; exit 1; }
    sleep 0.2
done
link=$(grep -o 'http[^ ]*/login#[^ ]*' "$data/out" | head -n 1) || true
[ -n "$link" ] || { echo "the demo printed no login link" >&2; cat "$data/out" "$data/err" >&2; exit 1; }

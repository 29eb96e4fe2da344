# Read by tests/examples and tests/schemathesis, in the root of the repository. `install_packages NAME LIST` installs
# the Python packages of a list once, into the directory `$python`.
install_packages() {
    python=$(realpath -m "${CARGO_TARGET_DIR:-target}")/$1
    cmp -s "$2" "$python/requirements.txt" && return
    rm -rf "$python"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
        --target "$python" -r "$2"
    cp "$2" "$python/requirements.txt"
}

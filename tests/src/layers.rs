//! The dependencies between layers, read from the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files below `dir`.
pub fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Returns lines of code that contain one of `words`, as `file:line: text`. Comments and the tests
/// at the file's end are ignored.
pub fn mentions(file: &Path, words: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let hit = |line: &str| {
        let code = line.split("//").next().unwrap_or("");
        words.iter().any(|w| code.contains(w))
    };
    let code = text.lines().take_while(|line| !line.starts_with("mod tests {"));
    let lines = code.enumerate().filter(|(_, line)| hit(line));
    lines.map(|(n, line)| format!("{}:{}: {}", file.display(), n + 1, line.trim())).collect()
}

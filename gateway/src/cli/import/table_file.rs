//! The table of an import: what each line says, and everything that is wrong with it.
//!
//! Pure. Knows nothing of what is at the gateway.

use std::collections::BTreeMap;

use csv::StringRecord;
use serde_json::{Map, Value, json};

use crate::api::devices;
use crate::names::Name;

const COLUMNS: [&str; 6] = ["name", "labels", "profile", "ssh_user", "public_key", "networks"];
/// Between the values of one cell.
const SEPARATOR: char = ';';

/// The fault of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub line: u64,
    pub what: String,
}

/// A device to be, with the fields that the API takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub line: u64,
    pub name: String,
    pub fields: Map<String, Value>,
}

/// The lines that are right, and what is wrong with the others.
pub fn read(bytes: &[u8]) -> (Vec<Row>, Vec<Wrong>) {
    // Spreadsheets put a byte order mark first.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(delimiter(bytes))
        .from_reader(bytes);
    let (mut file, mut lines) = (Table::default(), Lines::new(bytes));
    for record in reader.records() {
        match record {
            Ok(record) => file.line(lines.of(record.position()), &record),
            Err(error) => {
                let line = lines.of(error.position());
                file.wrong(line, "this is not UTF-8 text: save the file as UTF-8");
            }
        }
    }
    if file.columns.is_none() {
        file.wrong(1, "the file is empty: a header line is expected, such as name,labels");
    }
    (file.rows, file.wrong)
}

/// Spreadsheets of many countries separate by semicolons.
fn delimiter(bytes: &[u8]) -> u8 {
    let header = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let count = |wanted| header.iter().filter(|b| **b == wanted).count();
    if count(b';') > count(b',') { b';' } else { b',' }
}

/// The numbers of lines, asked for from the first to the last. The parser's own are off behind line ends of two
/// characters and empty lines.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { bytes, at: 0, line: 1 }
    }

    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let from = position.and_then(|p| usize::try_from(p.byte()).ok()).unwrap_or(self.at);
        let ends = |byte: &&u8| b"\r\n".contains(byte);
        let skipped = self.bytes.get(from..).unwrap_or_default().iter().take_while(ends).count();
        let passed = self.bytes.get(self.at..from + skipped).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.at = self.at.max(from + skipped);
        self.line
    }
}

#[derive(Default)]
struct Table {
    columns: Option<Vec<String>>,
    rows: Vec<Row>,
    wrong: Vec<Wrong>,
    /// The line that has a name or key first.
    seen: BTreeMap<(&'static str, String), u64>,
}

impl Table {
    fn wrong(&mut self, line: u64, what: impl Into<String>) {
        self.wrong.push(Wrong { line, what: what.into() });
    }

    fn line(&mut self, line: u64, record: &StringRecord) {
        if record.iter().all(str::is_empty) {
            return;
        }
        match self.columns.clone() {
            None => self.header(line, record),
            Some(columns) if columns.len() != record.len() => {
                let what = format!("{} cells, but the header line has {}", record.len(), columns.len());
                self.wrong(line, what);
            }
            // Without a name, the header line is wrong and each line would repeat it.
            Some(columns) if !columns.iter().any(|column| column == "name") => {}
            Some(columns) => self.device(line, columns.iter().map(String::as_str).zip(record)),
        }
    }

    fn header(&mut self, line: u64, record: &StringRecord) {
        let columns: Vec<String> = record.iter().map(str::to_lowercase).collect();
        for (at, column) in columns.iter().enumerate() {
            if !COLUMNS.contains(&column.as_str()) {
                self.wrong(line, format!("unknown column {column:?}: expected are {}", COLUMNS.join(", ")));
            } else if columns[..at].contains(column) {
                self.wrong(line, format!("column {column} is there twice"));
            }
        }
        if !columns.iter().any(|column| column == "name") {
            self.wrong(line, "no column name: the first line is a header line, such as name,labels");
        }
        self.columns = Some(columns);
    }

    fn device<'a>(&mut self, line: u64, cells: impl Iterator<Item = (&'a str, &'a str)>) {
        let before = self.wrong.len();
        let mut fields = Map::new();
        // The header line was refused for an unknown column.
        let known = |(column, cell): &(&str, &str)| COLUMNS.contains(column) && !cell.is_empty();
        for (column, cell) in cells.filter(known) {
            match field(column, cell) {
                Ok((name, value)) => drop(fields.insert(name.to_owned(), value)),
                Err(what) => self.wrong(line, format!("{column}: {what}")),
            }
        }
        let Some(name) = fields.get("name").and_then(Value::as_str).map(str::to_owned) else {
            return self.wrong(line, "name: missing");
        };
        if let Err(what) = Name::parse(&name) {
            self.wrong(line, format!("name: {what}"));
        }
        for error in devices::validate(Value::Object(fields.clone()), true).err().into_iter().flatten() {
            self.wrong(line, format!("{}: {}", error.field, error.detail));
        }
        self.is_first(line, "name", &name);
        if let Some(key) = fields.get("public_key").and_then(Value::as_str) {
            self.is_first(line, "public_key", key);
        }
        if self.wrong.len() == before {
            self.rows.push(Row { line, name, fields });
        }
    }

    fn is_first(&mut self, line: u64, what: &'static str, value: &str) {
        match self.seen.get(&(what, value.to_owned())) {
            Some(first) => self.wrong(line, format!("{what}: {value} is in line {first} already")),
            None => drop(self.seen.insert((what, value.to_owned()), line)),
        }
    }
}

/// The field of the API that a cell fills.
fn field(column: &str, cell: &str) -> Result<(&'static str, Value), String> {
    let parts = || cell.split(SEPARATOR).map(str::trim).filter(|part| !part.is_empty());
    Ok(match column {
        "name" => ("name", json!(cell)),
        "labels" => ("labels", labels(parts())?),
        "profile" => ("profile", json!(cell)),
        "ssh_user" => ("ssh", json!({ "user": cell })),
        "public_key" => ("public_key", json!(cell)),
        "networks" => ("networks", json!(parts().collect::<Vec<_>>())),
        other => return Err(format!("unknown column {other:?}")),
    })
}

fn labels<'a>(pairs: impl Iterator<Item = &'a str>) -> Result<Value, String> {
    let mut labels = Map::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?}: expected key=value, several separated by {SEPARATOR}"))?;
        if labels.insert(key.trim().to_owned(), json!(value.trim())).is_some() {
            return Err(format!("{} is given twice", key.trim()));
        }
    }
    Ok(Value::Object(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "mUD4m9tbXHZpx8F0vlLZ0TmT8rY0bvv8Zd2q8dGHR1s=";

    fn wrong(text: &str) -> Vec<String> {
        read(text.as_bytes()).1.into_iter().map(|w| format!("{}: {}", w.line, w.what)).collect()
    }

    #[test]
    fn a_line_is_a_device() {
        let text = format!(
            "Name,labels,public_key,networks,ssh_user\r\ncam-01,site=hill; kind=cam,,,\r\n\r\n\"cam-02\",,{KEY},192.168.7.0/24;10.1.0.0/16,fleet\r\n,,,,\r\n"
        );
        let (rows, wrong) = read(text.as_bytes());
        assert_eq!(wrong, []);
        let first = json!({ "name": "cam-01", "labels": { "site": "hill", "kind": "cam" } });
        let second = json!({
            "name": "cam-02", "public_key": KEY, "networks": ["192.168.7.0/24", "10.1.0.0/16"], "ssh": { "user": "fleet" },
        });
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(rows.iter().map(|row| json!(row.fields)).collect::<Vec<_>>(), [first, second]);
    }

    #[test]
    fn a_table_of_a_spreadsheet_is_read() {
        let (rows, wrong) = read("\u{feff}name;labels\r\ncam-01;\"site=hill;kind=cam\"\r\n".as_bytes());
        assert_eq!((rows.len(), wrong), (1, vec![]));
        assert_eq!(rows[0].fields["labels"], json!({ "site": "hill", "kind": "cam" }));
    }

    #[test]
    fn everything_that_is_wrong_is_said_with_its_line() {
        let text = "name,labels,public_key,networks\nCam,,,\ncam,site,,\ncam-2,a=1;a=2,x,224.0.0.0/24\ncam,,,\n,a=b,,\ncam-3,,\n";
        let said = wrong(text);
        for (at, start) in [
            "2: name: a name has 1 to 63",
            "3: labels: \"site\": expected key=value",
            "4: labels: a is given twice",
            "4: public_key: ",
            "4: networks: 224.0.0.0/24",
            "5: name: cam is in line 3 already",
            "6: name: missing",
            "7: 3 cells, but the header line has 4",
        ]
        .into_iter()
        .enumerate()
        {
            assert!(said.get(at).is_some_and(|line| line.starts_with(start)), "{start}: {said:#?}");
        }
    }

    #[test]
    fn the_header_line_is_required() {
        assert!(wrong("")[0].contains("the file is empty"));
        let said = wrong("cam-01,site=hill\ncam-02,site=hill\n");
        assert!(
            said[0].contains("unknown column \"cam-01\"") && said[2].contains("no column name"),
            "{said:?}"
        );
        assert_eq!(said.len(), 3, "a line does not repeat what is wrong with the header: {said:?}");
        let said = wrong("name,colour\ncam-01,red\ncam-02,blue\n");
        assert!(said.len() == 1 && said[0].contains("unknown column \"colour\""), "{said:?}");
        assert!(wrong("name,name\n")[0].contains("column name is there twice"));
        assert!(wrong("name\n\u{0}\n").len() == 1);
        assert!(read(b"name\ncam-\xff\n").1[0].what.contains("UTF-8"));
    }
}

//! Schemas of what the event log and the stream carry: the data of each kind of event, and each message of the stream.

use serde_json::{Map, Value, json};

use crate::store::event_data::{Data, Field, KINDS, Shape};

/// The messages of the stream: the name, what it says, and the schema of its data.
fn messages() -> [(&'static str, &'static str, Value); 8] {
    let object = |fields: Value| {
        let names: Vec<&String> = fields.as_object().into_iter().flat_map(Map::keys).collect();
        json!({ "type": "object", "required": names, "properties": fields.clone() })
    };
    let of = |name: &str| json!({ "$ref": reference(name) });
    let id = object(json!({ "id": { "type": "string" } }));
    [
        ("snapshot", "The first message: load the lists now.", object(json!({ "overview": of("Overview") }))),
        ("host", "A host as in the list: its state, that of a service, or its tunnel changed.", of("Host")),
        ("checked", "Results and packets that changed no state.", of("CheckedHosts")),
        ("host_removed", "A host was removed.", id.clone()),
        ("overview", "The counters may have changed.", of("Overview")),
        ("event", "A new event of the log.", of("Event")),
        ("enrolment", "An enrolment changed.", id),
        ("reload", "The reader was too slow: load everything again. The stream ends.", of("NoData")),
    ]
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

/// `host_removed` is a `StreamHostRemoved`.
fn message_name(event: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    format!("Stream{}", event.split('_').map(capital).collect::<String>())
}

/// Adds the schemas to the document, and leads to them from `Event` and from the stream.
pub fn add(document: &mut Value) {
    let schemas = &mut document["components"]["schemas"];
    for (_, data) in KINDS {
        schemas[data.name] = schema(data);
    }
    let refs: Vec<Value> = by_needs().iter().map(|data| json!({ "$ref": reference(data.name) })).collect();
    schemas["EventData"] = json!({ "description": "The data of an event, by its kind.", "anyOf": refs });
    let by_kind: Map<String, Value> =
        KINDS.iter().map(|(kind, data)| ((*kind).to_owned(), reference(data.name).into())).collect();
    schemas["Event"]["x-data-by-kind"] = by_kind.into();
    schemas["Event"]["properties"]["data"] = json!({ "$ref": reference("EventData") });
    schemas["CheckedHosts"] = checked();
    for (event, about, data) in messages() {
        // A client reads a line of text. The lines of an event are fields of an object, as in OpenAPI 3.2.
        let data = json!({ "type": "string", "contentMediaType": "application/json", "contentSchema": data });
        schemas[message_name(event)] = json!({
            "type": "object", "description": about, "required": ["event", "data"],
            "properties": { "event": { "type": "string", "enum": [event] }, "data": data },
        });
    }
    let names = messages().map(|(event, ..)| event);
    schemas["StreamMessage"] = json!({
        "description": "A message of the stream: the lines `event: NAME` and `data: JSON`.",
        "oneOf": names.map(|event| json!({ "$ref": reference(&message_name(event)) })),
        "discriminator": {
            "propertyName": "event",
            "mapping": names.map(|event| (event, reference(&message_name(event)))).into_iter()
                .map(|(event, schema)| (event.to_owned(), schema.into())).collect::<Map<String, Value>>(),
        },
    });
    let answer = &mut document["paths"]["/api/v1/stream"]["get"]["responses"]["200"];
    answer["content"]["text/event-stream"]["schema"] = json!({ "$ref": reference("StreamMessage") });
}

/// Each once. A client that tries one after the other finds the right one: what needs more fields comes first.
fn by_needs() -> Vec<&'static Data> {
    let mut all: Vec<&Data> = KINDS.iter().map(|(_, data)| data).collect();
    let needed = |data: &Data| data.fields.iter().filter(|field| field.needed).count();
    all.sort_by_key(|data| (std::cmp::Reverse(needed(data)), data.name));
    all.dedup();
    all
}

fn schema(data: &Data) -> Value {
    let property = |field: &Field| (field.name.to_owned(), shape(field.shape));
    let needed: Vec<&str> = data.fields.iter().filter(|field| field.needed).map(|field| field.name).collect();
    let properties: Map<String, Value> = data.fields.iter().map(property).collect();
    json!({ "type": "object", "properties": properties, "required": needed })
}

fn shape(shape: Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::MaybeText => json!({ "type": ["string", "null"] }),
        Shape::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Shape::Count => json!({ "type": "integer", "minimum": 0 }),
        Shape::MaybeNumber => json!({ "type": ["number", "null"] }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Object => json!({ "type": "object" }),
        Shape::MaybeObject => json!({ "type": ["object", "null"] }),
        Shape::Objects => json!({ "type": "array", "items": { "type": "object" } }),
    }
}

/// A field that is absent is as before.
fn checked() -> Value {
    let time = json!({ "type": "string" });
    let count = json!({ "type": "integer", "format": "int64", "minimum": 0 });
    let tunnel = json!({
        "type": "object", "required": ["rx_bytes", "tx_bytes", "handshakes"],
        "properties": {
            "last_packet": time, "last_handshake": time, "rx_bytes": count, "tx_bytes": count, "handshakes": count,
        },
    });
    json!({
        "type": "object", "required": ["last_check", "hosts"],
        "properties": {
            "last_check": { "type": ["string", "null"], "description": "The newest check of all." },
            "hosts": { "type": "array", "items": {
                "type": "object", "required": ["id"],
                "description": "A host of which something came. A field that is absent is as before.",
                "properties": { "id": { "type": "string" }, "last_check": time, "next_check": time, "tunnel": tunnel },
            } },
        },
    })
}

//! What clients say of bookings and rentals, in the stored answers to repeated calls.
//!
//! It may be personal data, so no stored answer has it. A repetition gets the present references and names.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::ids::IdKind;
use crate::api::response::problem::Problem;
use crate::store::Store;
use crate::store::rentals::references::{self, Reference};

/// Every booking and rental in an answer has this field.
const MARK: &str = "\"external_ref\"";
/// What a repetition does not get.
const LEFT_OUT: [&str; 3] = ["notes", "metadata", "end_note"];

/// Returns an answer as it is stored.
pub fn without(body: String) -> String {
    let Some(mut answer) = parsed(&body) else { return body };
    each(&mut answer, &mut |_, object| {
        fill(object, &Reference::default());
        LEFT_OUT.iter().for_each(|field| drop(object.remove(*field)));
    });
    answer.to_string()
}

/// Returns a stored answer as a repetition gets it.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn with_present(store: &Store, body: String) -> Result<String, Problem> {
    let Some(mut answer) = parsed(&body) else { return Ok(body) };
    let (mut rentals, mut bookings) = (BTreeSet::new(), BTreeSet::new());
    each(&mut answer, &mut |id, _| {
        rentals.extend(IdKind::Rental.parse(id).ok());
        bookings.extend(IdKind::Booking.parse(id).ok());
    });
    let present = references::of(&mut *store.reader().await?, &rentals, &bookings).await?;
    each(&mut answer, &mut |id, object| {
        if let Some(reference) = present.get(id) {
            fill(object, reference);
        }
    });
    Ok(answer.to_string())
}

fn parsed(body: &str) -> Option<Value> {
    body.contains(MARK).then(|| serde_json::from_str(body).ok()).flatten()
}

/// Calls `act` for each booking and rental of an answer, with its id.
fn each(value: &mut Value, act: &mut impl FnMut(&str, &mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            if let Some(id) = id_of(object) {
                act(&id, object);
            }
            object.values_mut().for_each(|value| each(value, act));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each(item, act)),
        _ => {}
    }
}

fn id_of(object: &Map<String, Value>) -> Option<String> {
    let id = object.get("id")?.as_str()?;
    let is = |kind: IdKind| kind.parse(id).is_ok();
    (is(IdKind::Rental) || is(IdKind::Booking)).then(|| id.to_owned())
}

/// Sets the fields that the object has.
fn fill(object: &mut Map<String, Value>, reference: &Reference) {
    for (field, text) in [("external_ref", &reference.external_ref), ("name", &reference.name)] {
        if let Some(value) = object.get_mut(field) {
            *value = Value::from(text.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use serde_json::json;

    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn a_stored_answer_has_no_reference_and_a_repetition_has_the_present_ones() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, external_ref, author, created_at) values (2, 1, 'now', '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  name, created_at)
             values (2, 2, 7, 100, 200, 100, 0, 0, 'door', 0)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let [booking, rental] = [IdKind::Booking, IdKind::Rental].map(|kind| kind.text(Id::from_i64(2)));
        let answer = |external_ref: Value, name: Value| {
            json!({ "id": booking, "external_ref": external_ref, "customer": "k_1",
                    "rentals": [{ "id": rental, "external_ref": external_ref, "name": name, "state": "booked" }] })
        };
        let mut first = answer(json!("zora"), json!("zoras-door"));
        (first["notes"], first["metadata"]) = (json!("for Zora"), json!({ "who": "Zora" }));
        first["rentals"][0]["end_note"] = json!("Zora left");
        let stored = without(first.to_string());
        assert!(!stored.to_lowercase().contains("zora"), "{stored}");
        let again = with_present(&store, stored).await.unwrap();
        let again: Value = serde_json::from_str(&again).unwrap();
        assert_eq!(again, answer(json!("now"), json!("door")));
    }

    #[test]
    fn answers_about_other_things_stay_as_they_are() {
        let device = "{\"name\": \"cam-1\", \"id\": \"h_0000000000007\"}";
        assert_eq!(without(device.to_owned()), device);
        assert_eq!(without(String::new()), "");
        let other = json!({ "external_ref": "x", "id": "k_0000000000007", "name": "n" }).to_string();
        assert_eq!(without(other.clone()), other);
    }
}

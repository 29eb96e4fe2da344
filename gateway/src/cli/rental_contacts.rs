//! The contacts of a rental, on the command line.

use crate::api::rentals::RentalContact;

/// Parses `Ada=ada@example.org`, the form of mails and customers `Ada <ada@example.org>`, or an address alone. The
/// gateway checks the address.
pub(super) fn parse(text: &str) -> Result<RentalContact, String> {
    let text = text.trim();
    let in_brackets = text.strip_suffix('>').and_then(|text| text.split_once('<'));
    let (name, email) = match in_brackets.or_else(|| text.rsplit_once('=')) {
        Some((name, email)) => (Some(name.trim()), email.trim()),
        None => (None, text),
    };
    if name == Some("") || !email.contains('@') {
        return Err("an address such as ada@example.org or Ada=ada@example.org is expected".to_owned());
    }
    Ok(RentalContact { name: name.map(str::to_owned), email: email.to_owned() })
}

/// Formats `Ada <ada@example.org>`.
pub(super) fn words(contact: &RentalContact) -> String {
    match &contact.name {
        Some(name) => format!("{name} <{}>", contact.email),
        None => contact.email.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_an_address_with_or_without_a_name() {
        for (text, shown) in [
            ("ada@example.org", "ada@example.org"),
            ("Ada Lovelace=ada@example.org", "Ada Lovelace <ada@example.org>"),
            (" Ada = ada@example.org ", "Ada <ada@example.org>"),
            ("Ada <ada@example.org>", "Ada <ada@example.org>"),
        ] {
            assert_eq!(words(&parse(text).unwrap()), shown);
        }
        for bad in ["", "Ada", "=ada@example.org", "ada@example.org=Ada"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}

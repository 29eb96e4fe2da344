//! Reads and shows who gets messages about the device of a rental.

use std::collections::BTreeSet;

use super::parse;
use super::types::RentalContact;
use crate::api::request::parse::Fields;
use crate::store::rentals::contacts::Contact;

/// Contacts of one rental. Each message goes to all of them.
const MAX_CONTACTS: usize = 8;

/// Reads contacts. `field`: where they stand in the request.
pub fn contacts(wrong: &mut Fields, field: &str, list: Vec<RentalContact>) -> Option<Vec<Contact>> {
    if list.len() > MAX_CONTACTS {
        return wrong.take(field, Err(format!("at most {MAX_CONTACTS} contacts are expected")));
    }
    let mut known = BTreeSet::new();
    let list = list.into_iter().enumerate();
    let read: Vec<Option<Contact>> = list
        .map(|(n, given)| {
            let contact = contact(wrong, &format!("{field}[{n}]"), given)?;
            let twice = || format!("{} is given twice: give each address once", contact.email);
            let is_new = known.insert(contact.email.to_lowercase());
            wrong.take(&format!("{field}[{n}].email"), is_new.then_some(contact.clone()).ok_or_else(twice))
        })
        .collect();
    read.into_iter().collect()
}

fn contact(wrong: &mut Fields, field: &str, given: RentalContact) -> Option<Contact> {
    let name = wrong.take(&format!("{field}.name"), given.name.map(parse::contact_name).transpose());
    let email = wrong.take(&format!("{field}.email"), parse::mailbox(given.email));
    Some(Contact { name: name?, email: email? })
}

pub fn to_api(contacts: &[Contact]) -> Vec<RentalContact> {
    let shown =
        |contact: &Contact| RentalContact { name: contact.name.clone(), email: contact.email.clone() };
    contacts.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(emails: &[&str]) -> Vec<RentalContact> {
        emails.iter().map(|email| RentalContact { name: None, email: (*email).to_owned() }).collect()
    }

    #[test]
    fn addresses_are_those_that_mail_reaches_and_each_is_given_once() {
        let mut wrong = Fields::default();
        let fine =
            contacts(&mut wrong, "contacts", given(&["ada@example.org", "b.o+b@example.org"])).unwrap();
        assert_eq!(to_api(&fine), given(&["ada@example.org", "b.o+b@example.org"]));
        wrong.finish().unwrap();
        for (bad, field) in [
            (&["ada@example.org", "Ada@Example.org"][..], "contacts[1].email"),
            (&["ada"][..], "contacts[0].email"),
            (&["Ada <ada@example.org>"][..], "contacts[0].email"),
            (&["ada@example.org\r\nBcc: eve@example.org"][..], "contacts[0].email"),
            (&[""][..], "contacts[0].email"),
            (&["a@example.org"; 9][..], "contacts"),
        ] {
            let mut wrong = Fields::default();
            assert_eq!(contacts(&mut wrong, "contacts", given(bad)), None, "{bad:?}");
            let problem = wrong.finish().unwrap_err().to_string();
            assert!(problem.starts_with(&format!("invalid: {field}: ")), "{problem}");
        }
    }
}

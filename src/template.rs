//! Texts with `{{name}}` in them: a column of the row, a label, or one of a few words about the alert.
//!
//! A text that cannot be filled in is not lost: it comes as far as it could be, with what was wrong behind it.

use std::collections::BTreeSet;

use crate::error::{Error, Kind, Result};
use crate::options::nearest;

/// The names in a template. Fails where braces do not close.
pub fn names(template: &str) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    pieces(
        template,
        |_| {},
        |name| {
            names.insert(name.to_string());
        },
    )?;
    Ok(names)
}

/// Fails for names that are not known, with the nearest one.
pub fn check(template: &str, known: &[&str], what: &str) -> Result<()> {
    let names = names(template).map_err(|err| err.with_context(what))?;
    match names.iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let err = Error::new(Kind::UndefinedColumn, format!("{what}: there is no \"{name}\" to fill in"));
            Err(match nearest(name, known.iter().copied()) {
                Some(near) => err.with_hint(format!("Did you mean {{{{{near}}}}}?")),
                None => err.with_hint("Names in {{…}} are columns of the relation, labels, alert, severity and state."),
            })
        }
    }
}

/// The text filled in. With a second text when something was wrong: what.
pub fn fill(template: &str, value: &dyn Fn(&str) -> Option<String>) -> (String, Option<String>) {
    let (mut text, mut missing) = (std::cell::RefCell::new(String::new()), BTreeSet::new());
    let done = pieces(
        template,
        |plain| text.borrow_mut().push_str(plain),
        |name| match value(name) {
            Some(value) => text.borrow_mut().push_str(&value),
            None => {
                text.borrow_mut().push_str(&format!("{{{{{name}}}}}"));
                missing.insert(name.to_string());
            }
        },
    );
    let wrong = match done {
        Err(err) => Some(err.message().to_string()),
        Ok(()) if !missing.is_empty() => {
            Some(format!("nothing is known of {}", missing.into_iter().collect::<Vec<_>>().join(", ")))
        }
        Ok(()) => None,
    };
    (std::mem::take(text.get_mut()), wrong)
}

/// The same as one text: what was wrong stands behind it.
pub fn fill_or_say(template: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    match fill(template, value) {
        (text, None) => text,
        (text, Some(wrong)) => format!("{text} [template error: {wrong}]"),
    }
}

fn pieces(template: &str, mut plain: impl FnMut(&str), mut named: impl FnMut(&str)) -> Result<()> {
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        plain(before);
        let Some((name, after)) = behind.split_once("}}") else {
            plain(&rest[before.len()..]);
            return Err(Error::new(Kind::InvalidParameter, "\"{{\" is not closed by \"}}\""));
        };
        named(name.trim());
        rest = after;
    }
    plain(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_filled_in_and_errors_are_said_behind_them() {
        let value = |name: &str| (name == "path").then(|| "/x {{y}}".to_string());
        assert_eq!(fill_or_say("at {{ path }}!", &value), "at /x {{y}}!", "what is filled in is not read again");
        assert_eq!(
            fill_or_say("{{nope}} {{path}}", &value),
            "{{nope}} /x {{y}} [template error: nothing is known of nope]"
        );
        let open = fill_or_say("é {{path}} and {{path", &value);
        assert_eq!(open, "é /x {{y}} and {{path [template error: \"{{\" is not closed by \"}}\"]");
        assert_eq!(fill_or_say("}} plain", &value), "}} plain");
        assert_eq!(fill_or_say("", &value), "");
    }

    #[test]
    fn unknown_names_are_found_before_anything_happens() {
        check("{{path}} {{alert}}", &["path", "alert"], "annotation \"summary\"").unwrap();
        let err = check("{{pth}}", &["path"], "annotation \"summary\"").unwrap_err();
        assert!(err.message().contains("summary") && err.hint().unwrap().contains("{{path}}"), "{err:?}");
        assert!(check("{{path", &["path"], "x").is_err());
    }
}

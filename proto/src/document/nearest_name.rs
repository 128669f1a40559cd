//! "Did you mean": the name that somebody meant who wrote another one.

/// Of these names, the one that was meant, if one of them is near enough to tell.
#[must_use]
pub fn nearest<'a>(written: &str, names: &[&'a str]) -> Option<&'a str> {
    // nobody misspells a name by more; it also bounds what a comparison costs
    const MAX_WRITTEN: usize = 64;
    if written.chars().count() > MAX_WRITTEN {
        return None;
    }
    let written = written.to_lowercase();
    names
        .iter()
        .map(|name| {
            let distance = strsim::damerau_levenshtein(&written, &name.to_lowercase());
            (distance, *name)
        })
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A remedy that names the one which was meant first, if it is clear.
pub(crate) fn remedy(written: &str, names: &[&str], otherwise: &str) -> String {
    match nearest(written, names) {
        Some(name) => format!("did you mean {name:?}? {otherwise}"),
        None => otherwise.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_name_is_found_by_letters_that_are_swapped_missing_or_of_another_case() {
        let names = ["selector", "action", "rules", "notPorts", "to"];
        for (written, meant) in [
            ("ruels", Some("rules")),
            ("rule", Some("rules")),
            ("Action", Some("action")),
            ("notports", Some("notPorts")),
            ("selctor", Some("selector")),
            ("too", Some("to")),
            ("principals", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, &names), meant, "{written:?}");
        }
        assert_eq!(nearest(&"rules".repeat(1000), &names), None);
    }
}

//! Names that a provider takes only in a narrower form than the client's.

use std::collections::HashMap;

/// What a provider allows in a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    /// Characters beside ASCII letters and digits.
    pub(crate) also: &'static str,
    /// Most characters.
    pub(crate) longest: usize,
}

/// Names as the provider knows them, and the way back. The same name is always renamed to the same, and two never to one.
#[derive(Debug, Default, Clone)]
pub(crate) struct Names {
    wire: HashMap<String, String>,
    client: HashMap<String, String>,
}

impl Names {
    /// The provider's form of a client's name.
    pub(crate) fn wire(&mut self, name: &str, rule: Rule) -> String {
        self.wire_as(name, name, rule)
    }

    /// The same, made of another text.
    pub(crate) fn wire_as(&mut self, name: &str, from: &str, rule: Rule) -> String {
        if let Some(known) = self.wire.get(name) {
            return known.clone();
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || rule.also.contains(c);
        let plain: String = from
            .chars()
            .map(|c| if allowed(c) { c } else { '_' })
            .take(rule.longest)
            .collect();
        let plain = if plain.is_empty() { "_".to_owned() } else { plain };
        let mut wire = plain.clone();
        let mut number = 2;
        while self.client.contains_key(&wire) {
            let end = format!("_{number}");
            let room = rule.longest.saturating_sub(end.len());
            wire = plain.chars().take(room).collect::<String>() + &end;
            number += 1;
        }
        self.wire.insert(name.to_owned(), wire.clone());
        self.client.insert(wire.clone(), name.to_owned());
        wire
    }

    /// The client's form of a name that the provider used; its own when the client never sent it.
    pub(crate) fn client_name(&self, wire: &str) -> String {
        self.client.get(wire).map_or(wire, String::as_str).to_owned()
    }
}

/// A fresh id for something that the provider gave none: `call_0199…`.
pub(crate) fn fresh(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { also: "_-", longest: 6 };

    #[test]
    fn names_are_narrowed_and_come_back() {
        let mut names = Names::default();
        let wire: Vec<_> = ["a.b", "a_b", "a b", "longest", "longest name", "", "ok"]
            .map(|name| names.wire(name, RULE))
            .to_vec();
        assert_eq!(wire, ["a_b", "a_b_2", "a_b_3", "longes", "long_2", "_", "ok"]);
        assert_eq!(names.wire("a.b", RULE), "a_b");
        assert_eq!(names.client_name("long_2"), "longest name");
        assert_eq!(names.client_name("never"), "never");
    }
}

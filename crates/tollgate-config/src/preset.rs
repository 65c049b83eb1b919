//! Providers that are known by name, as data.

use std::{collections::BTreeMap, sync::LazyLock};

use tollgate_types::{Dialect, provider::Quirks};

use crate::{
    cursor::{Cursor, Fields, Sink},
    value::{self, AuthKind},
    yaml,
};

/// `presets.yaml`, by name.
static PRESETS: LazyLock<BTreeMap<String, Preset>> = LazyLock::new(|| read(include_str!("../presets.yaml")).0);

/// What stands for a provider's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Preset {
    pub(crate) dialect: Dialect,
    pub(crate) auth: Option<AuthKind>,
    /// With `{region}` and the like still in it.
    pub(crate) base_url: String,
    pub(crate) quirks: Quirks,
    /// Whose price sheets hold for it.
    pub(crate) price_list: String,
}

/// The preset of this name.
pub(crate) fn find(name: &str) -> Result<&'static Preset, String> {
    PRESETS.get(name).ok_or_else(|| {
        let near = crate::mistake::suggestion(name, PRESETS.keys().map(String::as_str));
        format!("no preset has this name{near}")
    })
}

/// Names of all presets.
pub fn presets() -> impl Iterator<Item = &'static str> {
    PRESETS.keys().map(String::as_str)
}

fn read(text: &str) -> (BTreeMap<String, Preset>, Sink) {
    let sink = Sink::new("presets.yaml");
    let mut presets = BTreeMap::new();
    if let Ok(Some(root)) = yaml::read(text)
        && let Some(fields) = Cursor::root(&root, &sink).fields()
    {
        for (_, name, at) in fields.rest() {
            presets.extend(preset(&at, name).map(|preset| (name.to_owned(), preset)));
        }
    }
    (presets, sink)
}

fn preset(at: &Cursor<'_>, name: &str) -> Option<Preset> {
    let mut f = at.fields()?;
    let preset = Preset {
        dialect: f.value("dialect", Dialect::OpenaiChat, |at| at.parse(value::dialect)),
        auth: f.optional("auth", |at| at.parse(value::auth)),
        base_url: f.required("base_url", |at| at.text("a URL").map(str::to_owned))?,
        quirks: quirks(&mut f),
        price_list: f.value("price_list", name.to_owned(), |at| at.text("a name").map(str::to_owned)),
    };
    f.finish();
    Some(preset)
}

/// The key `quirks`: names of fields of [`Quirks`].
pub(crate) fn quirks(f: &mut Fields<'_>) -> Quirks {
    let mut quirks = Quirks::default();
    for name in f.list("quirks", |at| at.parse(value::quirk)) {
        match name {
            value::Quirk::MaxTokens => quirks.max_tokens = true,
            value::Quirk::NoDeveloper => quirks.no_developer = true,
            value::Quirk::NoJsonSchema => quirks.no_json_schema = true,
            value::Quirk::NoStreamOptions => quirks.no_stream_options = true,
        }
    }
    quirks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_presets_have_no_mistake() {
        let (presets, sink) = read(include_str!("../presets.yaml"));
        let mistakes = sink.into_sorted();
        assert!(mistakes.is_empty(), "{mistakes:?}");
        assert!(presets.len() > 20);
        for (name, preset) in presets {
            let url = ["region", "project", "resource"]
                .iter()
                .fold(preset.base_url, |url, key| url.replace(&format!("{{{key}}}"), "x1"));
            assert!(crate::url::base_url(&url).is_ok_and(|kept| kept == url), "{name}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_suggested() {
        assert_eq!(
            find("mistrall").unwrap_err(),
            "no preset has this name; did you mean \"mistral\"?"
        );
    }
}

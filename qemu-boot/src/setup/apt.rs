//! The machine's package sources, as far as another one is to be made in their image.
//!
//! Machines sit behind mirrors and proxies, so an address written down here would be wrong somewhere.
//! What is taken from the machine's own Debian entry is where it fetches from and which key it
//! trusts (`URIs` and `Signed-By`; sources.list(5)), in either of the two file formats.

use std::path::Path;

use anyhow::{Context, Result};

/// A package source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Addresses, separated by spaces.
    pub uris: String,
    /// Suites such as `bookworm`.
    pub suites: Vec<String>,
    /// Components such as `main`.
    pub components: Vec<String>,
    /// Key file or embedded key, as written.
    pub signed_by: Option<String>,
    /// The source is to be trusted without a signature.
    pub trusted: bool,
}

impl Source {
    /// A stanza in the deb822 format for another suite or architecture from the same place.
    pub fn stanza(&self, suite: &str, architecture: Option<&str>) -> String {
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
            self.uris
        );
        if let Some(architecture) = architecture {
            text += &format!("Architectures: {architecture}\n");
        }
        if let Some(key) = &self.signed_by {
            text += &format!("Signed-By: {key}\n");
        }
        if self.trusted {
            text += "Trusted: yes\n";
        }
        text
    }

    /// Debian's own address, for a machine that has no Debian source (another distribution).
    pub fn public(suite: &str) -> Self {
        Self {
            uris: "http://deb.debian.org/debian".to_owned(),
            suites: vec![suite.to_owned()],
            components: vec!["main".to_owned()],
            signed_by: Some("/usr/share/keyrings/debian-archive-keyring.gpg".to_owned()),
            trusted: false,
        }
    }
}

/// All enabled binary sources of this machine.
///
/// # Errors
/// If a file can't be read.
pub fn machine_sources() -> Result<Vec<Source>> {
    let etc = Path::new("/etc/apt");
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(etc.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let extension = file
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default();
        let parse: fn(&str) -> Vec<Source> = match extension {
            "list" => one_line,
            "sources" => deb822,
            _ => continue,
        };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        sources.extend(parse(&text));
    }
    Ok(sources)
}

/// The entry for a suite of the main archive.
pub fn find<'a>(sources: &'a [Source], suite: &str) -> Option<&'a Source> {
    sources.iter().find(|source| {
        source.suites.iter().any(|known| known == suite)
            && source
                .components
                .iter()
                .any(|component| component == "main")
    })
}

/// Entries in the format of `*.sources`.
fn deb822(text: &str) -> Vec<Source> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if let Some(fields) = stanzas.last_mut() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    *value += &format!("\n{line}");
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
    stanzas
        .iter()
        .filter_map(|fields| stanza_source(fields))
        .collect()
}

fn stanza_source(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        field(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    if field("enabled") == Some("no") || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris").join(" "),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").map(str::to_owned),
        trusted: field("trusted") == Some("yes"),
    })
}

/// Entries in the format of `sources.list`: `deb [option=value …] URI suite component…`.
fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut rest = line
                .strip_prefix("deb")?
                .strip_prefix([' ', '\t'])?
                .trim_start();
            let mut options = "";
            if let Some(inside) = rest.strip_prefix('[') {
                (options, rest) = inside.split_once(']')?;
            }
            let option = |name: &str| {
                options
                    .split_whitespace()
                    .find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            Some(Source {
                uris: words.next()?,
                suites: vec![words.next()?],
                components: words.collect(),
                signed_by: option("signed-by").map(|keys| keys.replace(',', " ")),
                trusted: option("trusted") == Some("yes"),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: &str = "\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example/debian
Suites: bookworm
Components: main
";

    #[test]
    fn deb822_with_an_embedded_key() {
        let sources = deb822(SOURCES);
        assert_eq!(sources.len(), 1);
        let source = find(&sources, "bookworm").unwrap();
        assert_eq!(find(&sources, "trixie"), None);
        let stanza = source.stanza("bookworm-backports", None);
        assert!(stanza.contains(
            "URIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\n"
        ));
        assert!(
            stanza.contains("Signed-By: \n -----BEGIN PGP") && stanza.contains("\n mQINBF\n"),
            "{stanza}"
        );
        // What is made can be read again.
        assert_eq!(deb822(&stanza)[0].uris, source.uris);
        assert_eq!(deb822(&stanza)[0].signed_by, source.signed_by);
    }

    #[test]
    fn one_line_with_and_without_options() {
        let sources = one_line(
            "# deb http://no.example x main\n\
             deb http://deb.debian.org/debian bookworm main contrib # tail\n\
             deb-src http://deb.debian.org/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k.gpg trusted=yes] https://m.example/debian bookworm-updates main\n",
        );
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].signed_by, None);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[1].signed_by.as_deref(), Some("/k.gpg"));
        let stanza = sources[1].stanza("bookworm", Some("arm64"));
        assert_eq!(
            stanza,
            "Types: deb\nURIs: https://m.example/debian\nSuites: bookworm\nComponents: main\n\
             Architectures: arm64\nSigned-By: /k.gpg\nTrusted: yes\n"
        );
    }
}

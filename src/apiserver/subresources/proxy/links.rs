//! Links in what a proxied pod answers: those that begin at the pod's root are made to lead through the proxy.
//!
//! The rules and the list of attributes are upstream's (`apimachinery/pkg/util/proxy`). Only the values of those
//! attributes change; everything else of a page stays byte for byte.

/// Attributes of elements that hold a link.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a page comes from and where the proxy offers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Path of the proxy, without a slash at its end.
    pub(super) prefix: String,
    /// Host and port of the backend.
    pub(super) backend: String,
    /// Host and port that the client asked.
    pub(super) asked: String,
}

impl Place {
    /// The link as a client of the proxy needs it.
    pub(super) fn rewrite(&self, link: &str) -> String {
        let (origin, path) = split(link);
        let host = origin.and_then(|origin| origin.split_once("//")).map(|(_, host)| host);
        let ours = host.is_none_or(|host| host == self.backend || host == self.asked);
        if !ours || !path.starts_with('/') {
            return link.to_owned();
        }
        // A link that names the host as the client knows it keeps that name; the backend's own means nothing outside.
        let origin = origin.filter(|_| host == Some(&self.asked)).unwrap_or_default();
        match path.starts_with(&self.prefix) {
            true => format!("{origin}{path}"),
            false => format!("{origin}{}{path}", self.prefix),
        }
    }

    /// The page with its links rewritten.
    pub(super) fn page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut rest = page;
        while let Some(at) = rest.iter().position(|b| *b == b'<') {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with(b"<!--") {
                rest = copy(&mut out, rest, find(rest, b"-->").map(|end| end + 3));
                continue;
            }
            let Some(tag) = Tag::read(rest) else {
                rest = copy(&mut out, rest, Some(1));
                continue;
            };
            self.tag(&tag, &rest[..tag.length], &mut out);
            rest = &rest[tag.length..];
            // Their content is text, whatever it looks like.
            if matches!(tag.name.as_str(), "script" | "style" | "textarea" | "title") {
                rest = copy(&mut out, rest, find(rest, format!("</{}", tag.name).as_bytes()));
            }
        }
        out.extend_from_slice(rest);
        out
    }

    fn tag(&self, tag: &Tag, text: &[u8], out: &mut Vec<u8>) {
        let links = LINKS.iter().find(|(name, _)| *name == tag.name).map_or(&[][..], |(_, links)| links);
        let mut done = 0;
        for (name, value) in tag.attributes.iter().filter(|(name, _)| links.contains(&name.as_str())) {
            let Ok(link) = std::str::from_utf8(&text[value.clone()]) else { continue };
            tracing::trace!(attribute = %name, link, "link of a proxied page");
            out.extend_from_slice(&text[done..value.start]);
            out.extend_from_slice(self.rewrite(link).as_bytes());
            done = value.end;
        }
        out.extend_from_slice(&text[done..]);
    }
}

/// Copies up to `end`, or everything when there is none; returns what is left.
fn copy<'a>(out: &mut Vec<u8>, text: &'a [u8], end: Option<usize>) -> &'a [u8] {
    let (done, rest) = text.split_at(end.unwrap_or(text.len()));
    out.extend_from_slice(done);
    rest
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

/// Scheme and host (`http://a:1`), when the link has one, and the rest of it.
fn split(link: &str) -> (Option<&str>, &str) {
    let Some(at) = link.find("//") else { return (None, link) };
    let scheme = &link[..at];
    let absolute =
        scheme.is_empty() || scheme.strip_suffix(':').is_some_and(|s| !s.contains(['/', '?', '#']));
    if !absolute {
        return (None, link);
    }
    let host_end = link[at + 2..].find(['/', '?', '#']).map_or(link.len(), |end| at + 2 + end);
    (Some(&link[..host_end]), &link[host_end..])
}

/// A start tag: its name in lower case, and where the values of its attributes are.
struct Tag {
    name: String,
    attributes: Vec<(String, std::ops::Range<usize>)>,
    length: usize,
}

impl Tag {
    /// `None` when this is no complete start tag.
    fn read(text: &[u8]) -> Option<Self> {
        if !text.get(1)?.is_ascii_alphabetic() {
            return None;
        }
        let blank = |b: u8| b.is_ascii_whitespace();
        let until = |from: usize, end: &dyn Fn(u8) -> bool| -> Option<usize> {
            text[from..].iter().position(|b| end(*b)).map(|n| from + n)
        };
        let lower = |range: std::ops::Range<usize>| String::from_utf8_lossy(&text[range]).to_lowercase();
        let mut at = until(1, &|b| blank(b) || b == b'/' || b == b'>')?;
        let mut tag = Tag { name: lower(1..at), attributes: Vec::new(), length: 0 };
        loop {
            at = until(at, &|b| !blank(b) && b != b'/')?;
            if text[at] == b'>' {
                tag.length = at + 1;
                return Some(tag);
            }
            let end = until(at + 1, &|b| blank(b) || matches!(b, b'=' | b'>' | b'/'))?;
            let name = lower(at..end);
            at = until(end, &|b| !blank(b))?;
            if text[at] != b'=' {
                continue;
            }
            let start = until(at + 1, &|b| !blank(b))?;
            let value = match text[start] {
                quote @ (b'"' | b'\'') => start + 1..until(start + 1, &|b| b == quote)?,
                _ => start..until(start, &|b| blank(b) || b == b'>')?,
            };
            at = value.end + usize::from(matches!(text[start], b'"' | b'\''));
            tag.attributes.push((name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { prefix: "/p/proxy".into(), backend: "10.42.0.9:80".into(), asked: "api:6443".into() }
    }

    #[test]
    fn links_from_the_root_lead_through_the_proxy() {
        for (link, wanted) in [
            ("/a/", "/p/proxy/a/"),
            ("a", "a"),
            ("?q=/a", "?q=/a"),
            ("/p/proxy/a", "/p/proxy/a"),
            ("http://10.42.0.9:80/a?b#c", "/p/proxy/a?b#c"),
            ("https://api:6443/a", "https://api:6443/p/proxy/a"),
            ("//10.42.0.9:80/a", "/p/proxy/a"),
            ("http://elsewhere/a", "http://elsewhere/a"),
            ("/to?next=http://elsewhere/", "/p/proxy/to?next=http://elsewhere/"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(place().rewrite(link), wanted, "{link}");
        }
    }

    #[test]
    fn pages_keep_everything_but_their_links() {
        for (page, wanted) in [
            (r#"<a href="/x">test</a>"#, r#"<a href="/p/proxy/x">test</a>"#),
            ("<IMG alt='/a' SRC='/b' /><p id=/c>", "<IMG alt='/a' SRC='/p/proxy/b' /><p id=/c>"),
            ("<link disabled href=/s.css>1 < 2", "<link disabled href=/p/proxy/s.css>1 < 2"),
            ("<!-- <a href=\"/x\"> --><a href", "<!-- <a href=\"/x\"> --><a href"),
            (
                "<script src=\"/s\">'<a href=\"/x\">'</script><a href='/y'>",
                "<script src=\"/p/proxy/s\">'<a href=\"/x\">'</script><a href='/p/proxy/y'>",
            ),
        ] {
            assert_eq!(String::from_utf8(place().page(page.as_bytes())).unwrap(), wanted);
        }
    }
}

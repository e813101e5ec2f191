//! As much of Markdown as it takes to find links and the anchors of headings, as GitHub makes them.

/// The targets of all links and images, each with the number of its line.
pub(crate) fn links(text: &str) -> Vec<(usize, &str)> {
    let prose = Prose::of(text);
    let defined = |name: &str| {
        let definition = format!("[{}]:", name.to_lowercase());
        prose.lines().any(|(_, line)| line.to_lowercase().starts_with(&definition))
    };
    let mut links = Vec::new();
    for (at, _) in prose.masked.match_indices("](") {
        let start = at + 2;
        let end = closing_parenthesis(&prose.masked[start..]).map_or(start, |end| start + end);
        // A title may follow.
        let target = text[start..end].split_ascii_whitespace().next().unwrap_or_default();
        links.push((line_of(text, at), target.trim_start_matches('<').trim_end_matches('>')));
    }
    // [text][name], which needs a definition, and the definitions: [name]: target
    for (at, _) in prose.masked.match_indices("][") {
        let name = text[at + 2..].split(']').next().unwrap_or_default();
        if !defined(name) {
            links.push((line_of(text, at), name));
        }
    }
    for (start, line) in prose.lines() {
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            let at = start + line.len() - target.len();
            let target = text[at..start + line.len()].trim();
            links.push((line_of(text, start), target));
        }
    }
    links
}

/// The addresses of the web outside of code, each with the number of its line.
pub(crate) fn web_addresses(text: &str) -> Vec<(usize, &str)> {
    let prose = Prose::of(text);
    let mut addresses = Vec::new();
    for scheme in ["https://", "http://"] {
        for (start, _) in prose.masked.match_indices(scheme) {
            let rest = &text[start..];
            let end = rest.find(|c: char| c.is_whitespace() || "<>()[]\"'`".contains(c));
            let address = &rest[..end.unwrap_or(rest.len())];
            addresses.push((line_of(text, start), address.trim_end_matches(['.', ',', ';', ':'])));
        }
    }
    addresses
}

/// The anchors of a page: of its headings, in their order.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let masked = without_fences(text);
    for (line, is_code) in text.lines().zip(masked.lines().map(|line| line.trim().is_empty())) {
        let level = line.chars().take_while(|&c| c == '#').count();
        if is_code || !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
            continue;
        }
        let anchor = anchor(line[level..].trim());
        let numbered = |number: usize| match number {
            0 => anchor.clone(),
            _ => format!("{anchor}-{number}"),
        };
        let free = (0..).map(numbered).find(|name| !anchors.contains(name));
        anchors.extend(free);
    }
    anchors
}

/// The anchor of a heading: in lower case, without punctuation, and with hyphens for spaces.
fn anchor(heading: &str) -> String {
    // Of a link only the text counts.
    let mut shown = String::new();
    let mut rest = heading;
    while let Some((before, link)) = rest.split_once("](") {
        shown.push_str(before);
        rest = closing_parenthesis(link).map_or("", |end| &link[end + 1..]);
    }
    shown.push_str(rest);
    let kept = shown.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// A text in which code and comments are masked by as many spaces, so that positions stay.
struct Prose {
    masked: String,
}

impl Prose {
    fn of(text: &str) -> Prose {
        let mut masked = without_fences(text);
        mask(&mut masked, |text, from| {
            let start = from + text[from..].find("<!--")?;
            let end = text[start..].find("-->").map_or(text.len(), |length| start + length + 3);
            Some((start, end, true))
        });
        mask(&mut masked, |text, from| {
            let start = from + text[from..].find('`')?;
            let ticks = text[start..].len() - text[start..].trim_start_matches('`').len();
            // Code ends in its paragraph, at as many backticks as it began with.
            let paragraph = text[start..].find("\n\n").map_or(text.len(), |length| start + length);
            let mut at = start + ticks;
            while let Some(found) = text[at..paragraph].find('`') {
                at += found;
                let run = text[at..].len() - text[at..].trim_start_matches('`').len();
                at += run;
                if run == ticks {
                    return Some((start, at, true));
                }
            }
            Some((start, start + ticks, false))
        });
        Prose { masked }
    }

    /// The lines, each with its position.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.masked.split_inclusive('\n').scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line.trim_end_matches('\n')))
        })
    }
}

/// Masks what `next` finds, from a position on: the start, the end, and whether it is to be masked.
fn mask(text: &mut String, next: impl Fn(&str, usize) -> Option<(usize, usize, bool)>) {
    let mut from = 0;
    while let Some((start, end, masks)) = next(text, from) {
        if masks {
            text.replace_range(start..end, &blank(&text[start..end]));
        }
        from = end;
    }
}

/// As many bytes, and the same lines.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The text with empty lines in the place of code between fences. Positions stay, as spaces at the
/// ends of these lines.
fn without_fences(text: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        let marks = bare.len() - bare.trim_start_matches(['`', '~']).len();
        let is_code = fence.is_some() || marks >= 3;
        match fence {
            None if marks >= 3 => fence = Some(&bare[..marks]),
            Some(opening) if bare.starts_with(opening) && marks == bare.len() => fence = None,
            _ => {}
        }
        if is_code { masked.push_str(&blank(line)) } else { masked.push_str(line) }
    }
    masked
}

/// The position of the parenthesis that closes what has been opened before this text.
fn closing_parenthesis(text: &str) -> Option<usize> {
    let mut open = 1;
    text.char_indices().find_map(|(at, c)| {
        open += i32::from(c == '(') - i32::from(c == ')');
        (open == 0).then_some(at)
    })
}

/// The number of the line with this position.
fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

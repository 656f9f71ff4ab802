//! A mail (RFC 5322), given to sendmail. Whatever a task printed, it cannot add a header or a recipient.

use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::{Body, Untold, program};
use crate::config::notify::is_mail;

/// Longest line of a mail that goes as it is, in bytes; RFC 5322 allows 998.
const LINE: usize = 900;

/// Bytes of text in one encoded word of a header: with its frame it is below the 75 that RFC 2047 allows.
const WORD: usize = 42;

/// Who gets it, and how.
pub(super) struct Envelope<'a> {
    pub(super) to: &'a [String],
    pub(super) from: &'a str,
    pub(super) sendmail: &'a str,
    /// The notice's message: a repeat has the same Message-ID.
    pub(super) id: &'a str,
}

/// Gives the mail to sendmail.
pub(super) fn tell(envelope: &Envelope<'_>, body: &Body) -> Result<String, Untold> {
    let mail = mail(envelope, body, Timestamp::now()).map_err(Untold::Never)?;
    let mut command = Command::new(envelope.sendmail);
    command.args(["-t", "-i"]).stdin(Stdio::piped());
    program::hide_targets(&mut command);
    let later = |why: String| Untold::Later(format!("{}: {why}", envelope.sendmail));
    let status = program::run(command, mail.as_bytes()).map_err(later)?;
    if status.success() {
        Ok(format!("{} took a mail to {}", envelope.sendmail, envelope.to.join(", ")))
    } else {
        Err(Untold::Later(format!("{}: {status}", envelope.sendmail)))
    }
}

/// The mail as text; lines end in LF, as sendmail wants them on stdin.
fn mail(envelope: &Envelope<'_>, body: &Body, now: Timestamp) -> Result<String, String> {
    // The config's check made sure of it; a header is no place to rely on that.
    let addresses = envelope.to.iter().map(String::as_str).chain([envelope.from]);
    if let Some(bad) = addresses.into_iter().find(|a| !is_mail(a)) {
        return Err(format!("{bad:?} is no mail address"));
    }
    let date = jiff::fmt::rfc2822::to_string(&now.in_tz("UTC").map_err(|e| e.to_string())?)
        .map_err(|e| e.to_string())?;
    let host = envelope.from.rsplit_once('@').map_or("localhost", |(_, host)| host);
    let plain = body.text.is_ascii() && body.text.lines().all(|l| l.len() <= LINE);
    let (encoding, text) = if plain { ("7bit", body.text.clone()) } else { ("base64", folded(&body.text)) };
    let id: String =
        envelope.id.chars().filter(|c| c.is_ascii_alphanumeric() || "_.-".contains(*c)).collect();
    Ok(format!(
        "From: {}\nTo: {}\nSubject: {}\nDate: {date}\nMessage-ID: <{id}@{host}>\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {encoding}\n\
         Auto-Submitted: auto-generated\nX-Taskd-Notice: {}\n\n{text}",
        envelope.from,
        envelope.to.join(",\n "),
        header(&format!("[taskd] {}", body.summary)),
        body.kind.name(),
    ))
}

/// A header's text: as it is where it is short and plain, else in encoded words (RFC 2047).
fn header(text: &str) -> String {
    let plain =
        text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) && !text.contains("=?") && text.len() <= 160;
    if plain {
        return text.to_owned();
    }
    let mut words: Vec<String> = vec![String::new()];
    for c in text.chars() {
        if let Some(last) = words.last_mut().filter(|w| w.len() + c.len_utf8() <= WORD) {
            last.push(c);
        } else {
            words.push(c.to_string());
        }
    }
    let words = words.iter().map(|w| format!("=?utf-8?B?{}?=", STANDARD.encode(w)));
    words.collect::<Vec<_>>().join("\n ")
}

/// Base64 in lines of 76.
fn folded(text: &str) -> String {
    let encoded = STANDARD.encode(text);
    let mut out = String::with_capacity(encoded.len() + encoded.len() / 70);
    for (n, c) in encoded.chars().enumerate() {
        if n > 0 && n % 76 == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::notice::{Kind, Notice};
    use crate::model::time::Wall;

    fn made(message: &str, to: &[&str]) -> Result<String, String> {
        let mut notice = Notice::sample("mail:x".to_owned(), Kind::Failure, "t", Wall(0));
        notice.subject.as_mut().unwrap().outcome.failure.as_mut().unwrap().message = message.to_owned();
        let body = Body::new(&notice, "web1", &jiff::tz::TimeZone::UTC);
        let to: Vec<String> = to.iter().map(|s| (*s).to_owned()).collect();
        let envelope = Envelope { to: &to, from: "taskd@web1", sendmail: "/x", id: "0198:a>b\n" };
        mail(&envelope, &body, Timestamp::from_second(1_700_000_000).unwrap())
    }

    fn headers(mail: &str) -> Vec<&str> {
        mail.split("\n\n").next().unwrap().lines().collect()
    }

    #[test]
    fn a_mail_is_one() {
        let mail = made("exit code 3", &["a@b.c", "root"]).unwrap();
        assert_eq!(
            headers(&mail),
            [
                "From: taskd@web1",
                "To: a@b.c,",
                " root",
                "Subject: [taskd] test: t failed on web1: exit code 3",
                "Date: Tue, 14 Nov 2023 22:13:20 +0000",
                "Message-ID: <0198ab@web1>",
                "MIME-Version: 1.0",
                "Content-Type: text/plain; charset=utf-8",
                "Content-Transfer-Encoding: 7bit",
                "Auto-Submitted: auto-generated",
                "X-Taskd-Notice: failure",
            ]
        );
        assert!(mail.contains("\n\ntest: t failed on web1: exit code 3\n"), "{mail}");
    }

    #[test]
    fn nothing_that_a_task_says_becomes_a_header() {
        for evil in [
            "x\nBcc: a@b",
            "x\r\nBcc: a@b\r\n\r\nbody",
            "ä\nBcc: a@b",
            "x\u{2028}Bcc: a@b",
            "x\0\u{b}Bcc: a@b",
        ] {
            let mail = made(evil, &["a@b.c"]).unwrap();
            let headers = headers(&mail);
            assert!(!headers.iter().any(|l| l.to_lowercase().starts_with("bcc")), "{headers:?}");
            assert_eq!(headers.iter().filter(|l| !l.starts_with(' ')).count(), 10, "{headers:?}");
            assert!(!mail.contains('\r'));
        }
        assert!(made("x", &["a@b\nBcc: c@d"]).is_err());
        assert!(made("x", &[]).is_ok());
    }

    #[test]
    fn other_alphabets_are_encoded_and_lines_are_short() {
        let mail = made(&"Прервано 中断 ".repeat(40), &["a@b.c"]).unwrap();
        assert!(mail.is_ascii() && mail.lines().all(|l| l.len() <= 100), "{mail}");
        let subject: String = headers(&mail)
            .iter()
            .skip_while(|l| !l.starts_with("Subject"))
            .take_while(|l| l.starts_with("Subject") || l.starts_with(' '))
            .filter_map(|l| l.split("?B?").nth(1)?.strip_suffix("?="))
            .map(|word| String::from_utf8(STANDARD.decode(word).unwrap()).unwrap())
            .collect();
        assert!(subject.starts_with("[taskd] test: t failed on web1: Прервано 中断 Прервано"), "{subject}");
        let text = mail.split("\n\n").nth(1).unwrap().replace('\n', "");
        let text = String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
        assert!(text.contains("Прервано"), "{text}");
    }
}

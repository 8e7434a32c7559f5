//! Unified diffs of small texts.

/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;
/// Beyond this many lines between the first and the last change the middle is shown as replaced as a whole.
const MAX_COMPARED: usize = 3000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// `@@` hunks that turn `old` into `new`; empty where they are equal. A missing final newline is not marked.
pub(super) fn unified(old: &str, new: &str) -> String {
    let edits = compare(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let changed: Vec<usize> = (0..edits.len()).filter(|index| !matches!(edits[*index], Edit::Same(_))).collect();
    let mut text = String::new();
    let mut rest = changed.as_slice();
    while let Some(&first) = rest.first() {
        let count = rest.windows(2).take_while(|pair| pair[1] - pair[0] <= 2 * CONTEXT + 1).count() + 1;
        let last = rest[count - 1];
        rest = &rest[count..];
        let start = first.saturating_sub(CONTEXT);
        let end = (last + CONTEXT + 1).min(edits.len());
        hunk(&edits, start, end, &mut text);
    }
    text
}

fn hunk(edits: &[Edit<'_>], start: usize, end: usize, text: &mut String) {
    let in_old = |edits: &[Edit<'_>]| edits.iter().filter(|edit| !matches!(edit, Edit::New(_))).count();
    let in_new = |edits: &[Edit<'_>]| edits.iter().filter(|edit| !matches!(edit, Edit::Gone(_))).count();
    let (before, inside) = (&edits[..start], &edits[start..end]);
    // A side without lines is numbered by the line before it.
    let range = |before: usize, count: usize| format!("{},{count}", if count == 0 { before } else { before + 1 });
    let (old, new) = (range(in_old(before), in_old(inside)), range(in_new(before), in_new(inside)));
    text.push_str(&format!("@@ -{old} +{new} @@\n"));
    for edit in inside {
        let (mark, line) = match edit {
            Edit::Same(line) => (' ', line),
            Edit::Gone(line) => ('-', line),
            Edit::New(line) => ('+', line),
        };
        text.push(mark);
        text.push_str(line);
        text.push('\n');
    }
}

/// The edits along a longest common subsequence.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Edit<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (gone, added) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut edits: Vec<_> = old[..head].iter().map(|line| Edit::Same(line)).collect();
    if gone.len().max(added.len()) > MAX_COMPARED {
        edits.extend(gone.iter().map(|line| Edit::Gone(line)));
        edits.extend(added.iter().map(|line| Edit::New(line)));
    } else {
        walk(gone, added, &mut edits);
    }
    edits.extend(old[old.len() - tail..].iter().map(|line| Edit::Same(line)));
    edits
}

fn walk<'a>(old: &[&'a str], new: &[&'a str], edits: &mut Vec<Edit<'a>>) {
    let width = new.len() + 1;
    // common[i * width + j]: longest common subsequence of old[i..] and new[j..].
    let mut common = vec![0_u16; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push(Edit::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1] {
            edits.push(Edit::Gone(old[i]));
            i += 1;
        } else {
            edits.push(Edit::New(new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_what_diff_u_writes() {
        for (old, new, expected) in [
            ("", "", ""),
            ("a\nb\n", "a\nb\n", ""),
            ("", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"),
            ("a\n", "", "@@ -1,1 +0,0 @@\n-a\n"),
            ("1\n2\n3\n4\n5\n", "1\n2\n3\n4\nfive\n", "@@ -2,4 +2,4 @@\n 2\n 3\n 4\n-5\n+five\n"),
            (
                "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n",
                "zero\n1\n2\n3\n4\n5\n6\n7\n8\nnine\n",
                "@@ -1,4 +1,4 @@\n-0\n+zero\n 1\n 2\n 3\n@@ -7,4 +7,4 @@\n 6\n 7\n 8\n-9\n+nine\n",
            ),
        ] {
            assert_eq!(unified(old, new), expected, "{old:?} {new:?}");
        }
    }

    proptest! {
        #[test]
        fn edits_lead_from_old_to_new(old in "([abc]\n){0,12}", new in "([abc]\n){0,12}") {
            let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
            let edits = compare(&old, &new);
            let side = |left_out: fn(&Edit<'_>) -> bool| -> Vec<&str> {
                edits.iter().filter(|edit| !left_out(edit)).map(|edit| match *edit {
                    Edit::Same(line) | Edit::Gone(line) | Edit::New(line) => line,
                }).collect()
            };
            prop_assert_eq!(side(|edit| matches!(edit, Edit::New(_))), old);
            prop_assert_eq!(side(|edit| matches!(edit, Edit::Gone(_))), new);
        }
    }
}

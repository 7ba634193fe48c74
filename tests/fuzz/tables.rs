//! What the pages list, so that an answer beyond it fails a test.

/// The cells of each row in the first table behind a heading; the first cell is at 1.
pub(crate) fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).expect("the page has the heading");
    let lines = section.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows = lines.take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<_>> = rows.map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect()).collect();
    assert!(rows.len() > 5, "there is no table behind {heading}");
    rows
}

/// The words in backticks of a cell.
pub(crate) fn words(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The codes of errors in `docs/protocol.md`.
pub(crate) fn error_codes() -> Vec<String> {
    rows(include_str!("../../docs/protocol.md"), "Errors").iter().flat_map(|row| words(&row[1])).collect()
}

/// Status and code of each refusal in `docs/http-api.md`.
pub(crate) fn api_refusals() -> Vec<(u16, String)> {
    let rows = rows(include_str!("../../docs/http-api.md"), "Errors");
    let refusals = rows.iter().flat_map(|row| {
        let status = row[1].parse().expect("a status");
        words(&row[2]).into_iter().map(move |code| (status, code))
    });
    refusals.collect()
}

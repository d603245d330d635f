//! The slow twin of every packer: the rules as lists of tokens, with linear scans and nothing clever.
//!
//! It takes all documents at once and gives all rows, so it knows no `Pending`, no slots and no states; what the
//! packers write must equal it token for token.

use super::NOT_LEARNED;

/// Which rule turns documents into rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One endless stream.
    Concat,
    /// Best fit; what does not fit is cut and carried on.
    Carry,
    /// Best fit; what does not fit is cropped.
    Crop,
    /// Best fit of whole documents, padded.
    Pad,
    /// One document a row.
    OnePerRow,
}

/// What a rule needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Naive {
    /// The rule.
    pub rule: Rule,
    /// Put before each document; none where documents bring their own.
    pub bos: Option<u32>,
    /// What fills a row that is not full.
    pub pad_id: u32,
    /// T + 1.
    pub row_length: usize,
}

/// A document: its row group, for `crop`, and its tokens.
pub type Grouped = (u64, Vec<u32>);

impl Naive {
    /// Every row of a finite list of documents; with `OnePerRow` rows are as long as their documents.
    pub fn rows(&self, documents: &[Grouped]) -> Vec<Vec<u32>> {
        match self.rule {
            Rule::Concat => self.concat(documents),
            Rule::Carry => self.carry(documents),
            Rule::Crop => self.crop(documents),
            Rule::Pad => self.pad(documents),
            Rule::OnePerRow => {
                documents.iter().map(|document| self.truncated(self.with_bos(document))).collect()
            }
        }
    }

    /// Batches of `batch_size` rows of equal length; rows of padding fill the last one.
    pub fn batches(&self, documents: &[Grouped], batch_size: usize) -> Vec<Vec<Vec<u32>>> {
        let mut batches = Vec::new();
        for rows in self.rows(documents).chunks(batch_size) {
            let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(2);
            let mut batch: Vec<_> = rows.iter().map(|row| self.padded(row.clone(), width)).collect();
            batch.resize(batch_size, self.padded(Vec::new(), width));
            batches.push(batch);
        }
        batches
    }

    fn with_bos(&self, document: &Grouped) -> Vec<u32> {
        self.bos.iter().chain(&document.1).copied().collect()
    }

    fn padded(&self, mut row: Vec<u32>, width: usize) -> Vec<u32> {
        row.resize(width, self.pad_id | NOT_LEARNED);
        row
    }

    fn truncated(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        tokens.truncate(self.row_length);
        tokens
    }

    fn concat(&self, documents: &[Grouped]) -> Vec<Vec<u32>> {
        let stream: Vec<u32> = documents.iter().flat_map(|document| self.with_bos(document)).collect();
        let (mut rows, mut start) = (Vec::new(), 0);
        while stream.len() - start >= self.row_length {
            rows.push(stream[start..start + self.row_length].to_vec());
            start += self.row_length - 1;
        }
        if stream.len() - start > 1 {
            rows.push(self.padded(stream[start..].to_vec(), self.row_length));
        }
        rows
    }

    fn carry(&self, documents: &[Grouped]) -> Vec<Vec<u32>> {
        let bos = self.bos.unwrap_or(0);
        let (mut rows, mut arrivals) = (Vec::new(), 0);
        let mut buffer: Vec<(usize, Vec<u32>)> = Vec::new();
        loop {
            let mut row = Vec::new();
            while row.len() < self.row_length {
                while buffer.len() < 256 && arrivals < documents.len() {
                    buffer.push((arrivals, documents[arrivals].1.clone()));
                    arrivals += 1;
                }
                if buffer.is_empty() {
                    break;
                }
                let space = self.row_length - row.len();
                let fits = |tokens: &Vec<u32>| tokens.len() < space;
                let mut best = 0;
                if arrivals - buffer[0].0 <= 512 {
                    let none_fits = !buffer.iter().any(|(_, tokens)| fits(tokens));
                    let longest = buffer.iter().filter(|(_, tokens)| none_fits || fits(tokens));
                    let length = longest.map(|(_, tokens)| tokens.len()).max();
                    best = buffer.iter().position(|(_, tokens)| Some(tokens.len()) == length).unwrap_or(0);
                }
                row.push(bos);
                if fits(&buffer[best].1) {
                    row.extend(buffer.remove(best).1);
                } else {
                    row.extend(buffer[best].1.drain(..space - 1));
                }
            }
            if row.is_empty() {
                return rows;
            }
            rows.push(self.padded(row, self.row_length));
        }
    }

    fn crop(&self, documents: &[Grouped]) -> Vec<Vec<u32>> {
        let mut chunks: Vec<Vec<Grouped>> = Vec::new();
        for document in documents {
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < 128 && chunk[0].0 == document.0 => chunk.push(document.clone()),
                _ => chunks.push(vec![document.clone()]),
            }
        }
        let (mut chunks, mut rows) = (chunks.into_iter(), Vec::new());
        let mut buffer: Vec<Vec<u32>> = Vec::new();
        loop {
            let mut row = Vec::new();
            while row.len() < self.row_length {
                while buffer.len() < 1000 {
                    let Some(chunk) = chunks.next() else { break };
                    buffer.extend(chunk.iter().map(|document| self.with_bos(document)));
                }
                if buffer.is_empty() {
                    break;
                }
                let space = self.row_length - row.len();
                let lengths: Vec<usize> = buffer.iter().map(Vec::len).collect();
                let longest = lengths.iter().filter(|&&length| length <= space).max();
                let best = longest.or(lengths.iter().min());
                let best = lengths.iter().position(|length| Some(length) == best).unwrap_or(0);
                row.extend(buffer.remove(best).into_iter().take(space));
            }
            if row.is_empty() {
                return rows;
            }
            rows.push(self.padded(row, self.row_length));
        }
    }

    fn pad(&self, documents: &[Grouped]) -> Vec<Vec<u32>> {
        let (mut rows, mut arrivals) = (Vec::new(), 0);
        let mut buffer: Vec<(usize, Vec<u32>)> = Vec::new();
        loop {
            let mut row: Vec<u32> = Vec::new();
            while row.len() < self.row_length {
                while buffer.len() < 100 && arrivals < documents.len() {
                    buffer.push((arrivals, self.truncated(self.with_bos(&documents[arrivals]))));
                    arrivals += 1;
                }
                let fits = |tokens: &Vec<u32>| tokens.len() <= self.row_length - row.len();
                let length =
                    buffer.iter().map(|(_, tokens)| tokens).filter(|tokens| fits(tokens)).map(Vec::len).max();
                let Some(length) = length else { break };
                let overtaken = row.is_empty() && arrivals - buffer[0].0 > 512;
                let best = buffer.iter().position(|(_, tokens)| overtaken || tokens.len() == length);
                row.extend(buffer.remove(best.unwrap_or(0)).1);
            }
            if row.is_empty() {
                return rows;
            }
            rows.push(self.padded(row, self.row_length));
        }
    }
}

//! The full-text index over passages: tantivy, on disk or in memory, BM25.
//!
//! Passages belong to a *revision*: one version of one document. Which revisions a query may see is decided outside,
//! before anything is ranked ([`Index::search`]), which is what an S3 Vectors index in enhanced mode does: a small tenant
//! among large ones still gets as many passages as it asked for.
//!
//! Ranking is lexical. A vector store always answers with its nearest neighbours, however far they are, and so does this
//! one: passages without a common word fill the list with score 0.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, BoostQuery, ConstScoreQuery, Occur, Query, TermQuery, TermSetQuery};
use tantivy::schema::{
    Field, INDEXED, IndexRecordOption, STORED, Schema, TantivyDocument, TextFieldIndexing, TextOptions, Value as _,
};
use tantivy::tokenizer::{TextAnalyzer, WhitespaceTokenizer};
use tantivy::{IndexReader, IndexWriter, ReloadPolicy, Term};

use super::chunk::Chunk;
use super::outline::Heading;
use super::term;

const WRITER_BYTES: usize = 15_000_000;
const TOKENIZER: &str = "terms";
const CLOSED: &str = "the index was closed";

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The revision that it belongs to.
    pub revision: u64,
    /// The passage.
    pub chunk: Chunk,
    /// BM25 score: 0 and more, comparable within one answer only.
    pub score: f32,
}

#[derive(Debug, Clone, Copy)]
struct Fields {
    revision: Field,
    ordinal: Field,
    offset: Field,
    page: Field,
    path: Field,
    text: Field,
    terms: Field,
}

/// The index.
pub struct Index {
    fields: Fields,
    /// None once the index was closed.
    writer: Mutex<Option<IndexWriter>>,
    reader: IndexReader,
}

impl Index {
    /// Opens the index in that directory, which is created if need be; in memory without one.
    ///
    /// # Errors
    ///
    /// When the directory can't be used, or another process uses it.
    pub fn open(directory: Option<&Path>) -> anyhow::Result<Self> {
        let mut schema = Schema::builder();
        let terms = TextOptions::default().set_indexing_options(
            TextFieldIndexing::default()
                .set_tokenizer(TOKENIZER)
                .set_index_option(IndexRecordOption::WithFreqs),
        );
        let fields = Fields {
            revision: schema.add_u64_field("revision", INDEXED | STORED),
            ordinal: schema.add_u64_field("ordinal", STORED),
            offset: schema.add_u64_field("offset", STORED),
            page: schema.add_u64_field("page", STORED),
            path: schema.add_text_field("path", STORED),
            text: schema.add_text_field("text", STORED),
            terms: schema.add_text_field("terms", terms),
        };
        let schema = schema.build();
        let index = match directory {
            None => tantivy::Index::create_in_ram(schema),
            Some(directory) => {
                std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
                let directory = tantivy::directory::MmapDirectory::open(directory)?;
                tantivy::Index::open_or_create(directory, schema).context("cannot open the full-text index")?
            }
        };
        index
            .tokenizers()
            .register(TOKENIZER, TextAnalyzer::from(WhitespaceTokenizer::default()));
        let writer = index
            .writer_with_num_threads(1, WRITER_BYTES)
            .context("cannot write the full-text index")?;
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self {
            fields,
            writer: Mutex::new(Some(writer)),
            reader,
        })
    }

    /// Writes the passages of a revision and removes others, in one step. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the index can't be written; then nothing has changed.
    pub fn replace(&self, revision: u64, chunks: &[Chunk], obsolete: &[u64]) -> anyhow::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().context(CLOSED)?;
        let written = self.write(writer, revision, chunks, obsolete);
        if written.is_err() {
            writer.rollback()?;
        }
        written?;
        self.reader.reload()?;
        Ok(())
    }

    fn write(&self, writer: &mut IndexWriter, revision: u64, chunks: &[Chunk], obsolete: &[u64]) -> anyhow::Result<()> {
        let fields = self.fields;
        for obsolete in obsolete.iter().chain([&revision]) {
            writer.delete_term(Term::from_field_u64(fields.revision, *obsolete));
        }
        for chunk in chunks {
            let mut document = TantivyDocument::default();
            document.add_u64(fields.revision, revision);
            document.add_u64(fields.ordinal, chunk.ordinal);
            document.add_u64(fields.offset, chunk.offset as u64);
            if let Some(page) = chunk.page {
                document.add_u64(fields.page, u64::from(page));
            }
            for heading in &chunk.path {
                document.add_text(fields.path, format!("{} {}", heading.level, heading.text));
            }
            document.add_text(fields.text, &chunk.text);
            let headings = chunk.path.iter().map(|heading| heading.text.as_str());
            let terms: Vec<String> = headings.chain([chunk.text.as_str()]).flat_map(indexed).collect();
            document.add_text(fields.terms, terms.join(" "));
            writer.add_document(document)?;
        }
        writer.commit()?;
        Ok(())
    }

    /// Removes revisions. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the index can't be written.
    pub fn remove(&self, revisions: &[u64]) -> anyhow::Result<()> {
        if revisions.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writer.as_mut().context(CLOSED)?;
        for revision in revisions {
            writer.delete_term(Term::from_field_u64(self.fields.revision, *revision));
        }
        writer.commit()?;
        self.reader.reload()?;
        Ok(())
    }

    /// Ends writing, so that another process can begin. Waits for what is being written; blocks.
    pub fn close(&self) {
        drop(self.writer.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// The best passages for a question among those revisions, best first.
    ///
    /// # Errors
    ///
    /// When the index can't be read.
    pub fn search(&self, question: &str, revisions: &[u64], limit: usize) -> anyhow::Result<Vec<Hit>> {
        if revisions.is_empty() || limit == 0 {
            return Ok(Vec::new());
        }
        let fields = self.fields;
        let allowed = TermSetQuery::new(
            revisions
                .iter()
                .map(|revision| Term::from_field_u64(fields.revision, *revision)),
        );
        let allowed = ConstScoreQuery::new(Box::new(allowed), 0.0);
        let mut clauses: Vec<(Occur, Box<dyn Query>)> = vec![(Occur::Must, Box::new(allowed))];
        for term in term::terms(question) {
            // Common words would rank long passages first, whatever they are about.
            let weight = if term::is_common(&term.word) { 0.1 } else { 1.0 };
            let query = TermQuery::new(
                Term::from_field_text(fields.terms, &term.text),
                IndexRecordOption::WithFreqs,
            );
            clauses.push((Occur::Should, Box::new(BoostQuery::new(Box::new(query), weight))));
        }
        for counted in counted(&term::terms(question)) {
            let query = TermQuery::new(
                Term::from_field_text(fields.terms, &counted),
                IndexRecordOption::WithFreqs,
            );
            clauses.push((Occur::Should, Box::new(BoostQuery::new(Box::new(query), 2.0))));
        }
        let searcher = self.reader.searcher();
        let found = searcher.search(
            &BooleanQuery::new(clauses),
            &TopDocs::with_limit(limit).order_by_score(),
        )?;
        found
            .into_iter()
            .map(|(score, address)| {
                let document: TantivyDocument = searcher.doc(address)?;
                let number = |field| document.get_first(field).and_then(|value| value.as_u64());
                Ok(Hit {
                    revision: number(fields.revision).unwrap_or(0),
                    chunk: Chunk {
                        ordinal: number(fields.ordinal).unwrap_or(0),
                        offset: number(fields.offset)
                            .and_then(|offset| usize::try_from(offset).ok())
                            .unwrap_or(0),
                        page: number(fields.page).and_then(|page| u32::try_from(page).ok()),
                        path: document
                            .get_all(fields.path)
                            .filter_map(|value| value.as_str()?.split_once(' '))
                            .map(|(level, text)| Heading {
                                level: level.parse().unwrap_or(0),
                                text: text.to_owned(),
                            })
                            .collect(),
                        text: document
                            .get_first(fields.text)
                            .and_then(|value| value.as_str())
                            .unwrap_or_default()
                            .to_owned(),
                    },
                    score,
                })
            })
            .collect()
    }

    /// How many passages there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.reader.searcher().num_docs()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is indexed of a text: its words, and each number together with its noun, so that `season 2` is found where that
/// stands and not where there is a second episode of every season.
fn indexed(text: &str) -> Vec<String> {
    let terms = term::terms(text);
    let counted = counted(&terms);
    terms.into_iter().map(|term| term.text).chain(counted).collect()
}

fn counted(terms: &[term::Term]) -> Vec<String> {
    let numbers = term::numbers(terms).into_iter();
    numbers
        .filter_map(|(noun, number)| noun.map(|noun| format!("{noun}#{number}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(ordinal: u64, text: &str) -> Chunk {
        let path = vec![Heading {
            level: 1,
            text: "Title".to_owned(),
        }];
        Chunk {
            ordinal,
            offset: 0,
            page: None,
            path,
            text: text.to_owned(),
        }
    }

    #[test]
    fn only_allowed_revisions_are_found_and_the_list_is_filled() {
        let index = Index::open(None).unwrap();
        index
            .replace(
                1,
                &[chunk(0, "The roof is made of slate."), chunk(1, "Nothing to see.")],
                &[],
            )
            .unwrap();
        index
            .replace(2, &[chunk(0, "The roof is made of straw.")], &[])
            .unwrap();
        let hits = index.search("roof", &[1], 5).unwrap();
        assert_eq!(hits.len(), 2);
        assert_eq!(hits[0].chunk.text, "The roof is made of slate.");
        assert!(hits[0].score > 0.0);
        assert!(hits.iter().all(|hit| hit.revision == 1));
        assert_eq!(index.search("roof", &[], 5).unwrap(), []);
    }

    #[test]
    fn a_number_is_found_with_its_noun() {
        let index = Index::open(None).unwrap();
        let season = |season: u64| {
            let lines = (1..=9).map(|episode| format!("Season {season}, Episode {episode}: 2 hours"));
            chunk(season, &lines.collect::<Vec<_>>().join("\n"))
        };
        index
            .replace(1, &(1..=20).map(season).collect::<Vec<_>>(), &[])
            .unwrap();
        let hits = index
            .search("Which episodes does the second season have?", &[1], 3)
            .unwrap();
        assert_eq!(hits[0].chunk.ordinal, 2);
    }

    #[test]
    fn a_new_revision_takes_the_place_of_an_old_one_and_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        {
            let index = Index::open(Some(directory.path())).unwrap();
            index.replace(1, &[chunk(0, "old")], &[]).unwrap();
            index.replace(2, &[chunk(0, "new")], &[1]).unwrap();
        }
        let index = Index::open(Some(directory.path())).unwrap();
        let hits = index.search("old new", &[1, 2], 5).unwrap();
        assert_eq!(
            hits.iter().map(|hit| hit.chunk.text.as_str()).collect::<Vec<_>>(),
            ["new"]
        );
        index.remove(&[2]).unwrap();
        assert!(index.is_empty());
    }
}

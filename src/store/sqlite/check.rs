//! Whether the book can be written just now.

use super::Store;
use crate::store::StoreError;

impl Store {
    /// Writes something of no meaning, through the same queue as everything else.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        self.writes
            .call(|db| {
                // A number in the file's head that nothing else uses.
                let last: i32 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
                Ok(db.pragma_update(None, "user_version", (last + 1) & 0xff)?)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use crate::store::testing::Book;

    #[tokio::test]
    async fn a_book_that_is_there_can_be_written() {
        let book = Book::new();
        for _ in 0..3 {
            book.check_writable().await.unwrap();
        }
    }
}

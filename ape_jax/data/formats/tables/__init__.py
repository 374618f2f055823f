"""Tables: CSV and TSV, JSON, Parquet, Arrow and Hugging Face's data sets."""

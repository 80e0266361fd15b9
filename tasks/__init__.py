"""The stages, a package each (ingest, teacher with fit, depth, pretrain, finetune with evaluate), and what they share:
`engine` runs them, `batches` feeds them, `training` trains. Knows no Prefect; imports all rooms but `flows`."""

"""The nouns, and how they lie on disk: the floor that everything stands on.

values        what rooms hand to each other: data sets, trials, results, estimates
tasks         what is predicted of a text, a row a task; how its labels lie in arrays
data_keys     the keys that say how labelled texts are read, with what their flags say
details       what a result says beside its scores: how it was trained, where it comes from
errors        every exception a user may see
study_folder  the paths and formats of a study
study_rows    the rows that it keeps, in rows.parquet
run_log       what a study says while it runs, in its folder
forms         what a classifier can be exported to; what a study keeps of its exports
results_table  its trials as rows, and results.csv
trial_files   a trial's files: written, read back, and told from damaged ones
cards         what study.yaml and data.json hold, key by key
text_lengths  what limits in tokens cut of a study's texts, as lengths.json holds it
artifact      the files and hashes of a saved classifier
files         every atomic write
checkpoints   where trainings in progress are kept
cells         what may stand in the CSV files that are written
bounded_yaml  YAML of users, read within bounds
shapes        whether what was read has the type that it is declared with
plain         what JSON and YAML may hold, as a type
cache         results kept by content, in the user's cache
machine       hardware, memory, versions
sent          what was sent to this machine along with trials
extras        what an optional part needs, as the line that installs it
events words version

May import: nothing of ours.
"""

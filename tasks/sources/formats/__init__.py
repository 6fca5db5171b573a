"""How files are read, one module for each format, and what is common to them.

`compressed` opens a file whatever it is compressed with and lists those of a folder, `other_files` recognises what was
not meant, `dialect` reads the cells as the source declares them, `unreadable` marks rows that cannot be read.
"""

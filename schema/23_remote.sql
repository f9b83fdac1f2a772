--
-- Remote SQL in the distributed transaction (src/exec/api.c).
--
-- Each function is there twice.  With an array of text, drivers can bind parameters
-- whose type they do not say; with "any", values need no casts.
--

CREATE OR REPLACE FUNCTION dtx.exec(
  server name,
  command text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_exec'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.exec(name, text, text[]) IS
  'runs SQL on a foreign server as part of the current transaction, and returns the number of rows affected; an error there is one here, with its SQLSTATE, and rolls back like one; what would end the transaction, and COPY from or to the client, is refused';

CREATE OR REPLACE FUNCTION dtx.exec(
  server name,
  command text,
  VARIADIC params "any"
) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_exec'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.exec(name, text, "any") IS
  'runs SQL on a foreign server as part of the current transaction, and returns the number of rows affected; parameters of any type';

CREATE OR REPLACE FUNCTION dtx.exec_all(
  servers name[],
  command text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS TABLE (server name, rows bigint)
AS 'MODULE_PATHNAME', 'dtx_sql_exec_all'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 COST 10000;

COMMENT ON FUNCTION dtx.exec_all(name[], text, text[]) IS
  'runs SQL on several foreign servers (null: all that the caller may use) at the same time as part of the current transaction, and returns the number of rows affected on each; an error on one is an error of all';

CREATE OR REPLACE FUNCTION dtx.exec_all(
  servers name[],
  command text,
  VARIADIC params "any"
) RETURNS TABLE (server name, rows bigint)
AS 'MODULE_PATHNAME', 'dtx_sql_exec_all'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 COST 10000;

COMMENT ON FUNCTION dtx.exec_all(name[], text, "any") IS
  'runs SQL on several foreign servers (null: all that the caller may use) at the same time as part of the current transaction, and returns the number of rows affected on each; parameters of any type';

CREATE OR REPLACE FUNCTION dtx.query(
  server name,
  query text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_query'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.query(name, text, text[]) IS
  'runs SQL on a foreign server as part of the current transaction, and returns the rows; needs a column definition list; errors are those of dtx.exec(), and that the columns do not fit';

CREATE OR REPLACE FUNCTION dtx.query(
  server name,
  query text,
  VARIADIC params "any"
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_query'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.query(name, text, "any") IS
  'runs SQL on a foreign server as part of the current transaction, and returns the rows; needs a column definition list; parameters of any type';

CREATE OR REPLACE FUNCTION dtx.query_all(
  servers name[],
  query text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_query_all'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.query_all(name[], text, text[]) IS
  'runs SQL on several foreign servers (null: all that the caller may use) at the same time as part of the current transaction, and returns the rows of all of them; needs a column definition list, whose first column takes the name of the server; an error on one is an error of all';

CREATE OR REPLACE FUNCTION dtx.query_all(
  servers name[],
  query text,
  VARIADIC params "any"
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_query_all'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.query_all(name[], text, "any") IS
  'runs SQL on several foreign servers (null: all that the caller may use) at the same time as part of the current transaction, and returns the rows of all of them; needs a column definition list, whose first column takes the name of the server; parameters of any type';

CREATE OR REPLACE FUNCTION dtx.query_json(
  server name,
  query text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'dtx_sql_query_json'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.query_json(name, text, text[]) IS
  'runs SQL on a foreign server as part of the current transaction, and returns each row as a JSON object; errors are those of dtx.exec()';

CREATE OR REPLACE FUNCTION dtx.query_json(
  server name,
  query text,
  VARIADIC params "any"
) RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'dtx_sql_query_json'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.query_json(name, text, "any") IS
  'runs SQL on a foreign server as part of the current transaction, and returns each row as a JSON object; parameters of any type';

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.UUID;

/** Sagas, one after the other: Saga COUNT */
public class Saga {
    static String transfer(Connection conn, String key, int amount) throws SQLException {
        try (PreparedStatement start = conn.prepareStatement("SELECT dtx.start_saga('transfer', ?::jsonb, ?)");
             PreparedStatement wait = conn.prepareStatement("SELECT dtx.wait_saga(?)")) {
            // the same key is the same saga, so this may be repeated
            start.setString(1, "{\"key\": \"" + key + "\", \"amount\": " + amount + "}");
            start.setString(2, key);
            try (ResultSet saga = start.executeQuery()) {
                saga.next();
                wait.setLong(1, saga.getLong(1));
            }
            try (ResultSet state = wait.executeQuery()) {
                state.next();
                return state.getString(1);
            }
        }
    }

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://" + env("JDBC_HOST", "127.0.0.1") + ":" + env("PGPORT", "5432") + "/"
            + env("PGDATABASE", "postgres");
        try (Connection conn = DriverManager.getConnection(url, env("PGUSER", "postgres"), env("PGPASSWORD", ""))) {
            for (int i = Integer.parseInt(args[0]); i > 0; i--) {
                String key = "java-saga-" + UUID.randomUUID();
                System.out.println(transfer(conn, key, 1) + " " + key);
            }
        }
    }
}

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.UUID;

/** Transfers between two servers, each in one transaction: Transfer COUNT */
public class Transfer {
    static void transfer(Connection conn, String key, int amount) throws SQLException {
        conn.setAutoCommit(false);
        try (PreparedStatement from = conn.prepareStatement("UPDATE account_berlin SET balance = balance - ? WHERE id = 1");
             PreparedStatement to = conn.prepareStatement("UPDATE account_tokyo SET balance = balance + ? WHERE id = 1");
             PreparedStatement record = conn.prepareStatement("INSERT INTO transfer (id, amount) VALUES (?, ?)")) {
            from.setInt(1, amount);
            from.executeUpdate();
            to.setInt(1, amount);
            to.executeUpdate();
            record.setString(1, key);
            record.setInt(2, amount);
            record.executeUpdate();
        }
        conn.commit();
    }

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }

    public static void main(String[] args) throws Exception {
        // the driver knows TCP only
        String url = "jdbc:postgresql://" + env("JDBC_HOST", "127.0.0.1") + ":" + env("PGPORT", "5432") + "/"
            + env("PGDATABASE", "postgres");
        Connection conn = DriverManager.getConnection(url, env("PGUSER", "postgres"), env("PGPASSWORD", ""));
        int count = Integer.parseInt(args[0]);

        for (int done = 0; done < count; ) {
            String key = "java-" + UUID.randomUUID();
            try {
                transfer(conn, key, 1);
                System.out.println("done " + key);
                done++;
            } catch (SQLException e) {          // rolled back, on all servers
                System.out.println("failed " + key + " " + e.getSQLState());
                Thread.sleep(100);
                if (conn.isValid(5))
                    conn.rollback();
                else                            // unknown: "key" tells
                    conn = DriverManager.getConnection(url, env("PGUSER", "postgres"), env("PGPASSWORD", ""));
            }
        }
        conn.close();
    }
}

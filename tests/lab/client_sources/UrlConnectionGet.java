import java.io.InputStream;
import java.net.URL;
import java.security.MessageDigest;
import java.util.HexFormat;
import javax.net.ssl.HttpsURLConnection;

/** One GET with HttpsURLConnection; prints status, length and digest. */
public class UrlConnectionGet {
    public static void main(String[] args) throws Exception {
        HttpsURLConnection connection = (HttpsURLConnection) new URL(args[0]).openConnection();
        connection.setConnectTimeout(8000);
        connection.setReadTimeout(8000);
        try (InputStream in = connection.getInputStream()) {
            byte[] body = in.readAllBytes();
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(body);
            System.out.println(connection.getResponseCode() + " " + body.length + " " + HexFormat.of().formatHex(digest));
        }
    }
}

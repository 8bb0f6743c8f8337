import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.cert.X509Certificate;
import java.time.Duration;

/** What client.py does, with Java: java Client.java URL [TIMES] */
public class Client {
    private static final long PAUSE = 5000;

    private static String call(String url) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(url)).timeout(Duration.ofSeconds(20)).build();
        // A client of its own for each call, so that each has a connection of its own.
        HttpResponse<Void> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.discarding());
        X509Certificate leaf = (X509Certificate) answer.sslSession().orElseThrow().getPeerCertificates()[0];
        String issuer = leaf.getIssuerX500Principal().getName().replaceFirst("(?s).*\\bCN=([^,]*).*", "$1");
        return "\"status\": %d, \"issuer\": \"%s\"".formatted(answer.statusCode(), issuer);
    }

    public static void main(String[] args) throws Exception {
        int times = args.length > 1 ? Integer.parseInt(args[1]) : 0;
        int failed = 0;
        for (int number = 0; times == 0 || number < times; number++) {
            if (number > 0) {
                Thread.sleep(PAUSE);
            }
            String told;
            try {
                told = call(args[0]);
                Files.writeString(Path.of("/tmp/ok"), "");
            } catch (java.io.IOException error) {
                failed++;
                told = "\"error\": \"%s\"".formatted(error.toString().replaceAll("[\\\\\"\\p{Cntrl}]", "'"));
            }
            System.out.println("{\"client\": \"java\", \"url\": \"%s\", %s}".formatted(args[0], told));
        }
        System.exit(failed > 0 ? 1 : 0);
    }
}
